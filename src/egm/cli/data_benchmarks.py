"""`egm data benchmarks`: what benchmarks are called, hold and expect, and where their files are had."""

from __future__ import annotations

from typing import Any

from egm.cli import options
from egm.cli.printing import console, plain_table


def benchmarks_command(as_json: options.AsJson = False) -> None:
    """List the benchmarks beside RefCOCO: splits, questions, what is expected, licence, and where the files are had.

    Nothing is downloaded. egm eval NAME/SPLIT --data-root DATA looks for them in DATA/NAME.
    """
    import json

    from egm.datasets.benchmarks import MEASURE_TITLES

    rows = describe_benchmarks()
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = plain_table("split", "expect", "counts", "questions", names=3)
    for row in rows:
        table.add_row(
            row["split"],
            row["expect"],
            MEASURE_TITLES[row["measure"]],
            "unknown" if row["questions"] is None else f"{row['questions']:,}",
        )
    out = console()
    out.print(table)
    for name, row in {row["split"].partition("/")[0]: row for row in rows}.items():
        unproven = f"; not shown by any public reader: {row['unproven']}" if row["unproven"] else ""
        out.print(f"{name}: {row['get']} ({row['licence']}{unproven})", markup=False, soft_wrap=True)


def describe_benchmarks() -> list[dict[str, Any]]:
    """Say what the benchmarks are, a row a split, JSON-ready."""
    from egm.datasets.benchmarks import BENCHMARKS

    return [
        {
            "split": f"{benchmark.name}/{split}",
            "questions": counts.questions,
            "pictures": counts.pictures,
            "none": counts.none,
            "expect": benchmark.expect,
            "measure": benchmark.measure,
            "licence": benchmark.licence,
            "source": benchmark.source,
            "get": benchmark.get,
            "unproven": benchmark.unproven,
        }
        for benchmark in BENCHMARKS
        for split, counts in benchmark.splits.items()
    ]
