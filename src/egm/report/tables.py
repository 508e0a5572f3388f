"""Summaries and comparisons as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text

from egm.display import printable
from egm.failures import COMPLEX_AT, Miss
from egm.report.compare import Comparison
from egm.report.grid import terminal
from egm.report.paired import comparison_grids
from egm.report.summary import METRICS, Summary
from egm.report.wording import MISS_TITLES, interval, intervals_note, percent
from egm.stats import Estimate

_MOST_CATEGORIES = 20
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
    parts: list[Table | Text] = [_figures(summary), Text(intervals_note(summary.images), style="dim")]
    parts += [_group(_GROUPS.get(name, name), rows) for name, rows in summary.groups.items()]
    misses = sum(summary.misses.values())
    table = _table("misses", "rows", "share")
    for name, count in summary.misses.items():
        table.add_row(MISS_TITLES[Miss(name)], str(count), f"{100 * count / misses:.1f} %")
        if name == Miss.NO_BOX:
            for reason, number in summary.no_box.items():
                table.add_row(Text(f"  {printable(reason)}"), str(number), "")
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
    """Tables of a comparison; arguments as in `egm.report.paired.comparison_grids`."""
    return Group(*map(terminal, comparison_grids(comparison, names)))


def _figures(summary: Summary) -> Table:
    columns = dict(summary.splits) if len(summary.splits) > 1 else {}
    if summary.average is not None:
        columns["average of splits"] = summary.average
    columns["all rows" if columns else next(iter(summary.splits)) or "all rows"] = summary.pooled
    table = _table("", *METRICS.values())
    for name, estimates in columns.items():
        table.add_row(
            Text(printable(name)).append(f"\n  {next(iter(estimates.values())).rows} rows"),
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
            table.add_row(Text(printable(name)), str(estimate.rows), percent(estimate.value), interval(estimate))
    if len(rows) > len(shown):
        table.add_row(f"{len(rows) - len(shown)} more with fewer rows", "", "", "")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if number else "left")
    return table
