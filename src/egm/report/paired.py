"""The tables of a comparison: differences, McNemar's test, and how each missed what the other got."""

from __future__ import annotations

from egm.display import printable
from egm.report.compare import Comparison
from egm.report.grid import Cell, Grid, Line
from egm.report.wording import MISS_TITLES, intervals_note
from egm.stats import Estimate, McNemar


def comparison_grids(comparison: Comparison, names: tuple[str, str]) -> list[Grid]:
    """Tables of a comparison.

    Args:
        comparison: Second against first.
        names: What to call the first and the second.
    """
    first, second = map(printable, names)
    differences = tuple(
        _line(
            title,
            f"{100 * paired.analytic.value:+.2f}",
            signed(paired.analytic),
            signed(paired.bootstrap),
            p_value(paired.p_value),
        )
        for title, paired in (("Acc@0.5", comparison.accuracy), ("mean IoU", comparison.mean_iou))
    )
    tests = [_mcnemar("all", comparison.mcnemar)]
    if len(comparison.splits) > 1:
        tests += [_mcnemar(split, result) for split, result in comparison.splits.items()]
    left_out = comparison.only_in_a + comparison.only_in_b
    counts = (comparison.missed_by_b, comparison.missed_by_a)
    misses = tuple(
        _line(title, *(str(count.get(miss, 0)) for count in counts))
        for miss, title in MISS_TITLES.items()
        if any(miss in count for count in counts)
    )
    grids = [
        Grid(
            f"{second} minus {first}",
            ("", "points", "95 % by formula", "95 % by bootstrap", "p"),
            (("", differences),),
            (
                f"{comparison.rows} items compared; {left_out} that only one file has are left out",
                intervals_note(comparison.images),
            ),
        ),
        Grid(
            "Acc@0.5, exact McNemar",
            ("", f"only {first}", f"only {second}", "both", "neither", "p"),
            (("", tuple(tests)),),
        ),
    ]
    if misses:
        columns = ("", f"{second} missed, {first} got", f"{first} missed, {second} got")
        grids.append(Grid("Items that one got and the other missed", columns, (("", misses),)))
    return grids


def p_value(value: float) -> str:
    """A p-value that never reads as zero."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _mcnemar(name: str, result: McNemar) -> Line:
    counts = (result.only_a, result.only_b, result.both, result.neither)
    return _line(printable(name), *map(str, counts), p_value(result.p_value))


def _line(name: str, *figures: str) -> Line:
    return Line(name, tuple(map(Cell, figures)))


def signed(estimate: Estimate) -> str:
    """An interval of differences in points."""
    return f"{100 * estimate.low:+.2f} to {100 * estimate.high:+.2f}"
