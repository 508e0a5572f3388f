"""The report of a reproduction: tables, figures, claims and one paragraph, from journals and latencies alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from egm.errors import DataError
from egm.failures import COMPLEX_AT
from egm.files import write_bytes, write_text
from egm.models.presets import size_text
from egm.report import grid as forms
from egm.report.costs import CURRENCIES, UNITS
from egm.report.figures import latency_figure, tokens_figure
from egm.report.grid import Cell, Grid, Line
from egm.report.labels import differences_notes
from egm.report.run_tables import card_grid
from egm.report.tables import p_value, signed
from egm.reproduce.claims import Claim, judge, paragraph
from egm.reproduce.learning import in_short, learning_figure, learning_grid, longer_grid, read_curves
from egm.reproduce.results import Result, Results, by_training, compare_hits, load_results
from egm.reproduce.run import ReproductionPlan
from egm.stats import Estimate

_FIGURES = {
    "accuracy_latency": "Accuracy against mean latency, one request at a time",
    "accuracy_tokens": "Accuracy against tokens of an answer",
    "learning": "Loss, reward and held-out accuracy of each training as it went",
}


def write_report(plan: ReproductionPlan) -> tuple[str, Grid, Path]:
    """Write `report/` from the arms that are complete.

    Returns:
        The paragraph, the main table, and `report.md`.

    Raises:
        DataError: If no arm is evaluated yet, or a journal is damaged.
    """
    results = load_results(plan)
    if not results.arms:
        raise DataError(f"no arm in {plan.out} is evaluated yet: there is nothing to report")
    claims = judge(results)
    grids = grids_of(results, claims)
    figures = _figures(results)
    out = plan.out / "report"
    out.mkdir(parents=True, exist_ok=True)
    text = paragraph(claims, results)
    for name in _FIGURES:
        for suffix in (".png", ".svg"):
            (out / f"{name}{suffix}").unlink(missing_ok=True)  # of an earlier report that had more
    for name, files in figures.items():
        for suffix, content in files.items():
            write_bytes(out / f"{name}{suffix}", content)
    for name, table in grids.items():
        write_text(out / f"{name}.csv", forms.csv_text(table))
    write_text(out / "report.tex", "\n".join(map(forms.latex, grids.values())))
    write_text(out / "claims.json", json.dumps([asdict(claim) for claim in claims], indent=2) + "\n")
    write_text(out / "report.md", _page(text, grids, figures, results))
    return text, grids["models"], out / "report.md"


def grids_of(results: Results, claims: Sequence[Claim]) -> dict[str, Grid]:
    """The tables by name: models, complexity, errors, paired, claims; learning and longer, as far as logs tell it."""
    curves = read_curves(results.plan)
    longer = longer_grid(claims, results.plan.arms, curves) if curves else None
    return {
        "models": _models(results),
        "complexity": _complexity(results),
        "errors": _errors(results),
        "paired": _paired(results),
        "claims": Grid(
            "Claims of the paper",
            ("claim", "here", "figures"),
            (("", tuple(Line(claim.says, (Cell(claim.verdict), Cell(claim.figures))) for claim in claims)),),
            (
                "Held: the 95 % interval of the difference is above 0. Not decided: it holds 0. Intervals are over "
                "questions, and say nothing of another training: what each training gives stands beside them.",
            ),
        ),
        **({"learning": learning_grid(curves)} if curves else {}),
        **({} if longer is None else {"longer": longer}),
    }


def _tokens(result: Result) -> Cell:
    return Cell("" if result.tokens is None else f"{result.tokens:.0f}")


def _computed(result: Result) -> tuple[Cell, ...]:
    means = {name: result.costs.mean(name) for name in ("operations", "bytes")}
    return tuple(Cell("" if mean is None else f"{mean / UNITS[name]:.4g}") for name, mean in means.items())


def _models(results: Results) -> Grid:
    accuracy = card_grid([result.run for result in results.rows])
    ((_, lines),) = accuracy.sections
    loads = {timing.load["concurrency"] for timing in results.timings}
    load = f"answers/s in batches of {', '.join(map(str, sorted(loads)))}" if loads else "answers/s in batches"
    titles = (
        "model",
        "parameters",
        "training samples",
        *accuracy.columns[1:],
        *CURRENCIES.values(),
        "mean ms",
        "p50",
        "p90",
        load,
    )
    rows = tuple(
        Line(
            line.name,
            (*_facts(result), *line.cells, _tokens(result), *_computed(result), *_times(result)),
            line.remarks,
        )
        for line, result in zip(lines, results.rows, strict=True)
    )
    notes = [
        *accuracy.notes,
        "Operations and bytes moved are computed from each model's shape, for an answer alone and 2 bytes a number "
        "(egm.models.costs); what kernels really do differs, and their launching is no part of it.",
        f"Latency: from sending to the last token, one request at a time. {_timed_together(results)}",
    ]
    if results.untimed is not None:
        notes[-1] = f"Latencies are left out: {results.untimed}."
    if len(results.rows) > len(results.arms):
        notes.append(
            "An arm with several seeds is the mean over its trainings: of each question, and of latencies; intervals "
            "are by picture, and the trainings stand beneath it."
        )
    return Grid("Acc@0.5 (%), cost and latency", titles, (("", rows),), tuple(notes))


def _timed_together(results: Results) -> str:
    """Whether all were timed in one run, and what was seen of the difference between runs, if not."""
    runs = {timing.started for timing in results.timings}
    if len(runs) < 2:
        return "All models were timed in one run."
    said = f"Models were timed in {len(runs)} runs, on the same hardware with the same driver and versions"
    apart = [
        abs(earlier / timing.alone["latency"]["mean"] - 1) for timing in results.timings for earlier in timing.earlier
    ]
    if not apart:
        return f"{said}; none of them in two, so that nothing is known of how runs differ."
    return f"{said}; those that were timed in several differ by up to {100 * max(apart):.1f} % between them."


def _facts(result: Result) -> tuple[Cell, Cell]:
    size, line, at = result.arm.parameters, list[str](), result.arm
    while True:
        line.insert(0, "?" if at.samples is None else f"{at.samples:,}")
        if at.parent is None:
            return Cell("" if size is None else size_text(size)), Cell(" + ".join(line))
        at = at.parent


def _times(result: Result) -> tuple[Cell, ...]:
    if not result.timings:
        return (Cell(),) * 4

    def milliseconds(key: str) -> Cell:
        return Cell(f"{1000 * result.timed(lambda timing: timing.alone['latency'][key]):.1f}")

    rate = result.timed(lambda timing: timing.load["requests_per_second"])
    return (*map(milliseconds, ("mean", "p50", "p90")), Cell(f"{rate:.1f}"))


def _complexity(results: Results) -> Grid:
    groups = {result.title: result.summary.groups["relations"] for result in results.rows}
    labels = list(dict.fromkeys(label for found in groups.values() for label in found))

    def line(result: Result) -> Line:
        shares = result.summary.complexity
        counted = [_cell(groups[result.title].get(label)) for label in labels]
        return Line(result.title, (_cell(shares.accuracy_simple), _cell(shares.accuracy_complex), *counted))

    return Grid(
        "Acc@0.5 (%) by complexity of the phrase",
        ("model", "simple", "complex", *(f"relation words: {label}" for label in labels)),
        (("", tuple(map(line, results.rows))),),
        (
            f"Complex: {COMPLEX_AT} or more relation words, ordinals, superlatives and negations together, by the "
            "grammar of egm.failures. 95 % intervals, clustered by picture.",
        ),
    )


def _errors(results: Results) -> Grid:
    def line(result: Result) -> Line:
        shares = result.summary.complexity
        misses = sum(result.summary.misses.values())
        return Line(result.title, (Cell(str(misses)), _cell(shares.among_misses), _cell(shares.base_rate)))

    return Grid(
        "Share of errors on complex phrases (%)",
        ("model", "errors", "on complex phrases", "complex among all phrases"),
        (("", tuple(map(line, results.rows))),),
        (
            "In the paper 62.8 % of a small model's errors, by its own count of what is complex. With several "
            "seeds the errors of all trainings are counted.",
        ),
    )


def _paired(results: Results) -> Grid:
    lines, differences = [], []
    for pair in results.pairs():
        for first, second in (pair, *by_training(*pair)):
            accuracy, test = compare_hits(first, second)
            differences.append(accuracy)
            figures = (
                f"{100 * accuracy.analytic.value:+.2f}",
                signed(accuracy.analytic),
                p_value(accuracy.p_value),
                signed(accuracy.bootstrap),
                *(("", "", "") if test is None else (str(test.only_a), str(test.only_b), p_value(test.p_value))),
            )
            lines.append(Line(f"{second.title} minus {first.title}", tuple(map(Cell, figures))))
    return Grid(
        "Paired comparisons, Acc@0.5",
        (
            *("", "points", "95 % by formula", "p by formula", "95 % by bootstrap"),
            *("only the first is right", "only the second", "p, exact McNemar"),
        ),
        (("", tuple(lines)),),
        (
            "The first is what is subtracted. Over all rows of the splits; intervals and bootstrap by picture. "
            "McNemar's test is of one training against another.",
            *differences_notes(differences),
        ),
    )


def _cell(estimate: Estimate | None) -> Cell:
    return Cell() if estimate is None else Cell.percent(estimate)


def _figures(results: Results) -> dict[str, dict[str, bytes]]:
    points = results.points()
    figures = {}
    if any(point.milliseconds for point in points):
        figures["accuracy_latency"] = latency_figure(points, results.splits)
    if any(point.tokens for point in points):
        figures["accuracy_tokens"] = tokens_figure(points, results.splits)
    if curves := read_curves(results.plan):
        figures["learning"] = learning_figure(curves)
    return figures


def _page(text: str, grids: Mapping[str, Grid], figures: Mapping[str, Mapping[str, bytes]], results: Results) -> str:
    parts = ["# Longer against bigger\n", f"{text}\n"]
    if results.missing:
        lost = "; ".join(f"{name}: {why}" for name, why in results.missing.items())
        parts.append(f"**Incomplete.** {lost}.\n")
    if "learning" in grids:
        parts.append(f"{in_short(grids['learning'], grids.get('longer'))}\n")
    parts.append(forms.markdown(grids["models"]))
    parts += [f"![{_FIGURES[name]}]({name}.png)\n" for name in figures]
    parts += [forms.markdown(table) for name, table in grids.items() if name != "models"]
    return "\n".join([*parts, _conditions(results)])


def _conditions(results: Results) -> str:
    """What the figures were made with."""
    lines = ["**Made with**\n"]
    timed = next(iter(results.timings), None)
    if timed is not None:
        versions = ", ".join(f"{name} {number}" for name, number in timed.about["versions"].items())
        lines.append(f"- latency: {timed.about['hardware']}, {timed.about['engine']}; {versions}")
    header = next(iter(results.arms.values())).run.header
    versions = ", ".join(f"{name} {number}" for name, number in header.versions.items())
    most = header.settings["max_new_tokens"]
    lines.append(f"- answers: {header.concurrency} at once, greedy, at most {most} tokens; {versions}")
    lines.append(f"- questions: {', '.join(f'{split} {n:,}' for split, n in _asked(results).items())}")
    lines.append("- settings of every arm: `reproduce.yaml`; each training's own record: `arms/NAME/train/run.json`")
    return "\n".join(lines) + "\n"


def _asked(results: Results) -> Mapping[str, int]:
    return next(iter(results.arms.values())).run.split_sizes
