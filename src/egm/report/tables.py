"""Summaries, comparisons and judgements as tables: what `egm score` prints, and `egm report --paired`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from egm.datasets.benchmarks import measure_title
from egm.failures import COMPLEX_AT, Miss
from egm.report.compare import Comparison
from egm.report.grid import Cell, Grid, Line
from egm.report.judge import Judgement
from egm.report.labels import MISS_TITLES, differences_notes, intervals_note, percent
from egm.report.set_summary import SET_METRICS, SetSummary
from egm.report.summary import COUNTED, METRICS, Estimates, Summary
from egm.stats import Estimate, McNemar
from egm.terminal import printable

_MOST_LINES = 20
_GROUPS = {
    "words": "words in the phrase",
    "relations": "relations in the phrase",
    "complexity": "relations, ordinals, superlatives, negations",
    "size": "size of the true box",
    "share": "true box, share of the picture",
    "category": "category",
    "kind": "kind",
    "distractors": "distractors in the picture",
    "negation": "negation in the phrase",
}


def summary_grids(summary: Summary, asked: Mapping[str, int] | None = None) -> list[Grid]:
    """Tables of a summary: metrics by split, what counts by kind of sample, the misses, and the complex phrases.

    Args:
        summary: What is shown.
        asked: How many samples each split has, where that is known: of those that are not whole it is told.
    """
    misses, counted = sum(summary.misses.values()), measure_title(summary.splits)
    kinds = []
    for name, count in summary.misses.items():
        title = MISS_TITLES[Miss(name)]
        kinds.append(Line.of(title, str(count), f"{100 * count / misses:.1f} %"))
        if name == Miss.NO_BOX:
            kinds += [Line.of(f"{title}: {printable(reason)}", str(n), "") for reason, n in summary.no_box.items()]
    complexity = summary.complexity
    return [
        _metrics(summary, asked or {}),
        *([] if summary.sets is None else [_sets(summary.sets)]),
        *(_group(_GROUPS.get(name, name), rows, counted) for name, rows in summary.groups.items()),
        Grid("misses", ("", "rows", "share"), (("", tuple(kinds)),)),
        _shares(
            f"complex phrases ({COMPLEX_AT} or more of these)",
            {
                "share among misses": complexity.among_misses,
                "share among all rows": complexity.base_rate,
                f"{counted} on complex phrases": complexity.accuracy_complex,
                f"{counted} on the others": complexity.accuracy_simple,
            },
        ),
    ]


def comparison_grids(comparison: Comparison, names: tuple[str, str]) -> list[Grid]:
    """Tables of a comparison: differences, McNemar's test and, if any, how each missed what the other got.

    Args:
        comparison: Second against first.
        names: What to call the first and the second.
    """
    first, second = map(printable, names)
    counted = measure_title(comparison.splits)
    differences = tuple(
        Line.of(
            title,
            f"{100 * paired.analytic.value:+.2f}",
            signed(paired.analytic),
            p_value(paired.p_value),
            signed(paired.bootstrap),
        )
        for title, paired in ((counted, comparison.accuracy), ("mean IoU", comparison.mean_iou))
    )
    tests = [_mcnemar("all", comparison.mcnemar)]
    if len(comparison.splits) > 1:
        tests += [_mcnemar(split, result) for split, result in comparison.splits.items()]
    few = comparison.accuracy.p_value is None
    left_out = comparison.only_in_a + comparison.only_in_b
    counts = (comparison.missed_by_b, comparison.missed_by_a)
    misses = tuple(
        Line.of(title, *(str(count.get(miss, 0)) for count in counts))
        for miss, title in MISS_TITLES.items()
        if any(miss in count for count in counts)
    )
    grids = [
        Grid(
            f"{second} minus {first}",
            ("", "points", "95 % by formula", "p by formula", "95 % by bootstrap"),
            (("", differences),),
            (
                f"{comparison.rows} items compared; {left_out} that only one file has are left out",
                intervals_note(comparison.images),
                *differences_notes(
                    (comparison.accuracy, comparison.mean_iou), "pictures" if comparison.images else "rows"
                ),
            ),
        ),
        Grid(
            f"{counted}, exact McNemar",
            ("", f"only {first}", f"only {second}", "both", "neither", "p"),
            (("", tuple(tests)),),
            ("it takes rows of one picture for independent, and so decides no more than the above",) if few else (),
        ),
    ]
    if misses:
        columns = ("", f"{second} missed, {first} got", f"{first} missed, {second} got")
        grids.append(Grid("Items that one got and the other missed", columns, (("", misses),)))
    return grids


def judgement_grids(judgement: Judgement) -> list[Grid]:
    """Tables of a judgement: the confusion of classes by rule with those by the judge, and agreement and shares."""
    said = ", ".join(f"{count} {status}" for status, count in judgement.counts.items())
    note = f"judge {judgement.model}: {said}" + (f"; first failure: {judgement.error}" if judgement.error else "")
    confusion = judgement.confusion
    kinds = [str(kind) for kind in Miss if any(kind in row for row in confusion.values())]
    counts = [Line.of(rule, *(str(row.get(kind, 0)) for kind in kinds)) for rule, row in confusion.items()]
    shares = _shares(
        "judged misses",
        {
            "same class by rule and judge": judgement.agreement,
            "complex phrases by judge": judgement.complex_by_judge,
            "complex phrases by rule": judgement.complex_by_rule,
        },
        printable(note),
    )
    return [Grid("misses by rule, and by judge", ("", *kinds), (("", tuple(counts)),)), shares] if counts else [shares]


def p_value(value: float | None) -> str:
    """A p-value that never reads as zero; in words where there is none, as too few pictures decide nothing."""
    if value is None:
        return "not decided"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def signed(estimate: Estimate) -> str:
    """An interval of differences in points."""
    return f"{100 * estimate.low:+.2f} to {100 * estimate.high:+.2f}"


def _metrics(summary: Summary, asked: Mapping[str, int]) -> Grid:
    lines: dict[str, tuple[Estimates, int]] = {}
    total = sum(asked.values())
    if len(summary.splits) > 1 or len(asked) > 1:
        lines |= {printable(split): (found, asked.get(split, 0)) for split, found in summary.splits.items()}
    if summary.average is not None:
        lines["average of splits"] = summary.average, total
    whole = "all rows" if lines else printable(next(iter(summary.splits))) or "all rows"
    lines[whole] = summary.pooled, total
    lines[f"{whole}, by bootstrap"] = summary.bootstrap, total
    titles = METRICS | ({COUNTED: f"{measure_title(summary.splits)}, by split"} if COUNTED in summary.pooled else {})
    return Grid(
        "accuracy and IoU, %",
        ("", "rows", *titles.values()),
        (("", tuple(_estimates(name, *facts, titles) for name, facts in lines.items())),),
        (intervals_note(summary.images),),
    )


def _sets(sets: SetSummary) -> Grid:
    lines = [
        Line(title, (Cell(str(sets.estimates[key].rows)), Cell.percent(sets.estimates[key])))
        for key, title in SET_METRICS.items()
        if key in sets.estimates
    ]
    if sets.average_precision is not None:
        titles = ("AP@0.5", "AP@0.5:0.95")
        lines += [Line.of(name, "", percent(value)) for name, value in zip(titles, sets.average_precision, strict=True)]
    note = f"of {sets.rows} questions {sets.none} match nothing, {sets.several} several things"
    untold = () if sets.average_precision is not None else ("no average precision: not every box has a confidence",)
    return Grid("none and many, %", ("", "rows", "%"), (("", tuple(lines)),), (note, *untold))


def _estimates(name: str, estimates: Mapping[str, Estimate], asked: int, keys: Iterable[str]) -> Line:
    rows = next(iter(estimates.values())).rows
    figures = (Cell.percent(estimates[key]) if key in estimates else Cell() for key in keys)
    return Line(name, (Cell(f"{rows} of {asked}" if rows < asked else str(rows)), *figures))


def _group(title: str, rows: Mapping[str, Estimate], counted: str) -> Grid:
    shown = sorted(rows, key=lambda name: -rows[name].rows)[:_MOST_LINES]
    lines = tuple(
        Line(printable(name), (Cell(str(estimate.rows)), Cell.percent(estimate)))
        for name, estimate in rows.items()
        if name in shown
    )
    notes = (f"{len(rows) - len(shown)} more with fewer rows",) if len(rows) > len(shown) else ()
    return Grid(title, ("", "rows", counted), (("", lines),), notes)


def _shares(title: str, shares: Mapping[str, Estimate | None], *notes: str) -> Grid:
    lines = (Line(name, (Cell.percent(share),)) for name, share in shares.items() if share is not None)
    return Grid(title, ("", "%"), (("", tuple(lines)),), notes)


def _mcnemar(name: str, result: McNemar) -> Line:
    counts = (result.only_a, result.only_b, result.both, result.neither)
    return Line.of(printable(name), *map(str, counts), p_value(result.p_value))
