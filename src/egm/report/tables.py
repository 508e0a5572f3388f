"""Summaries and comparisons as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text

from egm.failures import COMPLEX_AT, Miss
from egm.report.compare import Comparison
from egm.report.summary import METRICS, Summary
from egm.stats import Estimate, McNemar

_MOST_CATEGORIES = 20
_MISSES = {
    Miss.NO_BOX: "no box",
    Miss.MIRRORED: "left and right mistaken",
    Miss.WRONG_SAME_KIND: "another object of the same kind",
    Miss.WRONG_OBJECT: "another annotated object",
    Miss.PART: "a part for the whole",
    Miss.WHOLE: "the whole for a part",
    Miss.LOOSE: "the right object, loosely",
    Miss.OTHER: "other",
}
_GROUPS = {
    "words": "words in the phrase",
    "relations": "relations in the phrase",
    "complexity": "relations, ordinals, superlatives, negations",
    "size": "size of the true box",
    "share": "true box, share of the picture",
    "category": "category",
    "kind": "kind",
}


def summary_tables(summary: Summary) -> Group:
    """Tables of a summary: figures by split, Acc@0.5 by kind of sample, and the misses."""
    parts: list[Table | Text] = [_figures(summary), *_notes(summary.images)]
    parts += [_group(_GROUPS.get(name, name), rows) for name, rows in summary.groups.items()]
    misses = sum(summary.misses.values())
    table = _table("misses", "rows", "share")
    for name, count in summary.misses.items():
        table.add_row(_MISSES[Miss(name)], str(count), f"{100 * count / misses:.1f} %")
        if name == Miss.NO_BOX:
            for reason, number in summary.no_box.items():
                table.add_row(_plain(f"  {reason}"), str(number), "")
    parts.append(table)
    complexity = summary.complexity
    table = _table(f"complex phrases ({COMPLEX_AT} or more of these)", "%", "95 % interval")
    for title, estimate in (
        ("share among misses", complexity.among_misses),
        ("share among all rows", complexity.base_rate),
        ("Acc@0.5 on complex phrases", complexity.accuracy_complex),
        ("Acc@0.5 on the others", complexity.accuracy_simple),
    ):
        if estimate is not None:
            table.add_row(title, percent(estimate.value), interval(estimate))
    parts.append(table)
    return Group(*parts)


def comparison_tables(comparison: Comparison, names: tuple[str, str]) -> Group:
    """Tables of a comparison.

    Args:
        comparison: Second against first.
        names: What to call the first and the second.
    """
    differences = _table(f"{names[1]} minus {names[0]}", "points", "95 % by formula", "95 % by bootstrap", "p")
    for title, paired in (("Acc@0.5", comparison.accuracy), ("mean IoU", comparison.mean_iou)):
        differences.add_row(
            title,
            f"{100 * paired.analytic.value:+.2f}",
            _signed(paired.analytic),
            _signed(paired.bootstrap),
            p_value(paired.p_value),
        )
    table = _table("Acc@0.5, exact McNemar", f"only {names[0]}", f"only {names[1]}", "both", "neither", "p")
    _mcnemar(table, "all", comparison.mcnemar)
    if len(comparison.splits) > 1:
        for split, result in comparison.splits.items():
            _mcnemar(table, split, result)
    left_out = comparison.only_in_a + comparison.only_in_b
    notes = [Text(f"{comparison.rows} items compared; {left_out} that only one file has are left out", style="dim")]
    return Group(differences, table, *notes, *_notes(comparison.images))


def percent(value: float) -> str:
    """A share in percent, one more digit than published tables give."""
    return f"{100 * value:.2f}"


def interval(estimate: Estimate) -> str:
    """The interval in percent."""
    return f"{100 * estimate.low:.2f} to {100 * estimate.high:.2f}"


def p_value(value: float) -> str:
    """A p-value that never reads as zero."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _figures(summary: Summary) -> Table:
    columns = dict(summary.splits) if len(summary.splits) > 1 else {}
    if summary.average is not None:
        columns["average of splits"] = summary.average
    columns["all rows" if columns else next(iter(summary.splits)) or "all rows"] = summary.pooled
    table = _table("", *METRICS.values())
    for name, estimates in columns.items():
        table.add_row(
            _plain(name).append(f"\n  {next(iter(estimates.values())).rows} rows"),
            *(f"{percent(estimates[key].value)}\n[dim]{interval(estimates[key])}[/dim]" for key in METRICS),
        )
    boot = summary.bootstrap
    table.add_row("  by bootstrap", *(f"[dim]{interval(boot[key])}[/dim]" if key in boot else "" for key in METRICS))
    return table


def _group(title: str, rows: Mapping[str, Estimate]) -> Table:
    table = _table(title, "rows", "Acc@0.5", "95 % interval")
    shown = sorted(rows, key=lambda name: -rows[name].rows)[:_MOST_CATEGORIES]
    for name, estimate in rows.items():
        if name in shown:
            table.add_row(_plain(name), str(estimate.rows), percent(estimate.value), interval(estimate))
    if len(rows) > len(shown):
        table.add_row(f"{len(rows) - len(shown)} more with fewer rows", "", "", "")
    return table


def _notes(images: int) -> list[Text]:
    note = f"95 % intervals, clustered by {images} pictures"
    if not images:
        note = "pictures are not known: intervals take rows for independent and are too narrow; --data mends that"
    return [Text(note, style="dim")]


def _mcnemar(table: Table, name: str, result: McNemar) -> None:
    counts = (result.only_a, result.only_b, result.both, result.neither)
    table.add_row(_plain(name), *map(str, counts), p_value(result.p_value))


def _signed(estimate: Estimate) -> str:
    return f"{100 * estimate.low:+.2f} to {100 * estimate.high:+.2f}"


def _plain(text: str) -> Text:
    """Names out of data, without what could steer the terminal."""
    return Text("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if number else "left")
    return table
