"""The figures of an evaluation on the command line, however it came to be."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from egm.cli import suite as suites
from egm.cli.printing import console, figure, note, plain_table, say_next
from egm.terminal import printable, shell_command, spaced

if TYPE_CHECKING:
    from egm.evaluate import Evaluation

_SPREAD = ("mean", "p50", "p90", "p99")
_TIMES = {
    "seconds": "to the last token",
    "cold": "  first question of an image",
    "warm": "  its other questions",
    "first_token": "to the first token",
    "queue": "waiting before",
}


def tell_run(result: Evaluation, folder: Path, *, suite: bool, as_json: bool) -> None:
    """Print a run's figures, and what the reader should know of them.

    Args:
        result: The run.
        folder: Its folder.
        suite: Whether it is of a whole suite, or of a part by a choice or a shard.
        as_json: Whether to print JSON.

    Raises:
        Exit: With 1, if the run ended before its time.
    """
    from egm.failures import run_notes

    summary = result.summary()
    summary |= suites.facts(summary, result.header) if suite else {}
    if as_json:
        print(json.dumps({"folder": str(folder), **summary}))
    else:
        _print(summary, folder)
    if suite and not as_json and result.stopped is None and result.header.share is None:
        suites.print_table(result)
    for line in run_notes(result.records, result.header.codec["name"]):
        note(line)
    if result.stopped is not None:
        print("error:", printable(result.stopped), "(--retry-errors, --max-errors)", file=sys.stderr)
        raise typer.Exit(1)
    if result.header.share is not None:
        say_next("egm eval merge RUN... --out DIR, of all shards")
    elif len(result.records) < result.total:
        say_next(f"the command of a shard, without --shard and with {shell_command('--out', folder)}")
    else:
        say_next(_report_command(result, folder))


def _report_command(result: Evaluation, folder: Path) -> str:
    """Name the command that reports a run, with a gallery where journals find the pictures again."""
    from egm.report.gallery import is_scene

    words = ["egm", "report", folder]
    if not result.header.images and not all(is_scene(record.image) for record in result.records):
        return shell_command(*words)  # they lay in the file of their dataset
    pictures = ["--images", result.header.images] if result.header.images else []
    return shell_command(*words, "--gallery", folder / "gallery.html", *pictures)


def _print(summary: Mapping[str, Any], folder: Path) -> None:
    from rich.text import Text

    from egm.datasets.benchmarks import measure_title

    counted = measure_title(summary["splits"])
    table = plain_table("split", "n", counted, "mean IoU", "no box", "errors", "tokens", "reasoning", "answer")
    parts = [*summary["splits"].items()]
    whole = summary["all"]
    for name, row in [*parts, ("all", whole)] if len(parts) > 1 else parts:
        tokens = row["tokens"]
        table.add_row(
            Text(printable(name)),
            str(row["n"]),
            figure(row["accuracy"], 2, scale=100),
            figure(row["mean_iou"], 4),
            str(sum(row["failures"].values())),
            str(sum(row["errors"].values())),
            *(figure(tokens[kind], 0) for kind in ("completion", "reasoning", "answer")),
        )
    times = plain_table(f"seconds, {summary['concurrency']} at once", "n", *_SPREAD)
    for name, title in _TIMES.items():
        if spread := whole["latency"][name]:
            times.add_row(title, str(spread["n"]), *(figure(spread[share], 3) for share in _SPREAD))
    out = console()
    shard = f"shard {summary['shard']}" if "shard" in summary else None
    out.print(Text(printable(", only ".join(filter(None, (summary["model"], summary.get("choice"), shard))))))
    out.print(table)
    if times.row_count:
        out.print(times)
    if rate := whole["latency"]["tokens_per_second"]:
        out.print(f"{rate:.1f} tokens a second in one request")
    if thinking := whole.get("thinking"):
        out.print(
            f"thought about {100 * thinking['thought']:.1f} % of {thinking['n']}; direct answers that were not taken: "
            f"{thinking['direct_tokens']:.1f} of the tokens",
            soft_wrap=True,
        )
    if sets := whole.get("sets"):
        parts = [("F1@0.5", "f1"), ("rejection accuracy", "n_acc"), ("false alarms", "false_alarms")]
        parts += [("false rejections", "false_rejections")]
        shown = ", ".join(f"{title} {100 * sets[key]:.2f}" for title, key in parts if sets[key] is not None)
        out.print(
            f"none and many, of {sets['n']} ({sets['none']} match nothing): {shown}", soft_wrap=True, markup=False
        )
    for title, counts in (("no box", whole["failures"]), ("errors", whole["errors"])):
        if counts:
            kinds = ", ".join(f"{kind} {count}" for kind, count in counts.items())
            out.print(f"{title}: {kinds}", soft_wrap=True, markup=False)
    out.print(f"journal: {spaced(folder / 'journal.jsonl')}", soft_wrap=True, markup=False)
