"""The tables of a report: the model card's, ours beside the published rows, and what the answers cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from egm.datasets import EVALUATION
from egm.datasets.benchmarks import benchmark_of, measure_title
from egm.errors import ModelError
from egm.evaluate import totals
from egm.models.presets import get_preset, size_text
from egm.report.costs import CURRENCIES, UNITS, AnswerCosts, run_costs
from egm.report.grid import Cell, Grid, Line
from egm.report.published import PublishedRow, published
from egm.report.runs import Run, benchmarks_of, columns_of
from egm.report.set_summary import SET_METRICS, summarise_sets
from egm.report.summary import cluster_numbers
from egm.terminal import printable

_FAMILIES = {"refcoco": "RefCOCO", "refcoco+": "RefCOCO+", "refcocog": "RefCOCOg"}
_SHOWN = ("f1@0.5", "f1@0.5:0.95", "acc_one", "n_acc", "false_alarms")
PUBLISHED, MEASURED = "as published", "measured here"


def accuracy_grids(runs: Sequence[Run], *, questions: bool = False) -> dict[str, Grid]:
    """The tables of accuracy by what they are called: the card's, or of the splits found, and that of the benchmarks.

    Args:
        runs: Ours.
        questions: Whether to say beneath each of them how many questions it was.
    """
    benchmarks = benchmarks_of(runs)
    others = [split for run in runs for split in run.split_sizes if split not in benchmarks]
    grids = {"accuracy": card_grid(runs, questions=questions)} if others or not benchmarks else {}
    return grids | ({"benchmarks": benchmark_grid(runs)} if benchmarks else {})


def benchmark_grid(runs: Sequence[Run]) -> Grid:
    """What each benchmark counts, ours beneath the published figures; without an average, as they differ in kind."""
    sections = []
    for split in benchmarks_of(runs):
        lines = [
            Line(row.model, (Cell(), Cell(f"{row.value:.1f}")), (row.source, *row.remarks))
            for row in published().benchmarks
            if row.split == split
        ]
        for run in runs:
            if split in run.accuracy:
                asked = sum(record.split == split for record in run.records)
                lines.append(Line(run.name, (Cell(f"{asked:,}"), Cell.percent(run.accuracy[split])), run.remarks))
        sections.append((f"{split}, {measure_title([split])}", tuple(lines)))
    note = (
        "Without questions: as published. Measured: 95 % intervals, clustered by picture; of several boxes those count "
        "as right that pair off with the true ones (an F1 of 1)."
    )
    return Grid("Benchmarks, %", ("model", "questions", "%"), tuple(sections), (note,))


def card_grid(runs: Sequence[Run], *, questions: bool = False) -> Grid:
    """What counts, by split, and its average: the card's eight columns, or the splits found, if they are others.

    Args:
        runs: Ours.
        questions: Whether to say beneath each of them how many questions it was.
    """
    columns = tuple(split for split in columns_of(runs) if benchmark_of(split) is None) or columns_of(runs)
    on_refcoco = columns == EVALUATION
    ours = []
    for run in runs:
        cells = [Cell.percent(run.accuracy[split]) if split in run.accuracy else Cell() for split in columns]
        if len(columns) > 1:
            average = run.average(columns)
            cells.append(Cell() if average is None else Cell.percent(average))
        ours.append(Line(run.name, tuple(cells), run.remarks))
        if questions:
            counts = [sum(record.split == split for record in run.records) for split in columns]
            counts += [len(run.records)] if len(columns) > 1 else []
            ours.append(Line.of("questions", *(f"{count:,}" for count in counts)))
    sections = [(MEASURED, tuple(ours))] if on_refcoco else [("", tuple(ours))]
    notes = ["Measured: 95 % intervals, clustered by picture."]
    if on_refcoco:
        sections.insert(0, (PUBLISHED, tuple(_published_line(row) for row in published().rows)))
        notes.append(published().accuracy_note)
    elif len(columns) > 1:
        notes.append("The average is the mean of the splits.")
    titles = [column_title(split) for split in columns] + (["average"] if len(columns) > 1 else [])
    return Grid(f"{measure_title(columns)}, %", ("model", *titles), tuple(sections), tuple(notes))


def sets_grid(runs: Sequence[Run]) -> Grid | None:
    """What runs do where nothing or several things may match, a line a run; None where all questions expect one box."""
    found = [(run, summarise_sets(run.records, cluster_numbers(run.records))) for run in runs]
    lines = [
        Line(run.name, tuple(Cell.percent(sets.estimates[key]) if key in sets.estimates else Cell() for key in _SHOWN))
        for run, sets in found
        if sets is not None
    ]
    if not lines:
        return None
    titles = ("model", *(SET_METRICS[key] for key in _SHOWN))
    note = "Over the questions that nothing or several things may match; 95 % intervals, clustered by picture."
    return Grid("none and many, %", titles, (("", tuple(lines)),), (note,))


def cost_grid(runs: Sequence[Run]) -> Grid:
    """Latency in milliseconds and tokens of an answer, with how many were asked at once."""
    times = ("mean", "p50", "p90", "p99", "cold", "warm")
    told = [run_costs(run.header, run.records) for run in runs]
    costs = [each for each, _ in told]
    computed = [name for name in ("operations", "bytes") if any(each.mean(name) is not None for each in costs)]
    thought = any(record.thought is not None for run in runs for record in run.records)
    extra = (*(CURRENCIES[name] for name in computed), *(["thought about, %"] if thought else []))
    titles = ("model", "parameters", "at once", *times, "tokens/s", "reasoning", "tokens", *extra)
    ours = tuple(
        _cost_line(run, [_in_units(each, name) for name in computed] + ([_thought(run)] if thought else []))
        for run, each in zip(runs, costs, strict=True)
    )
    sections: tuple[tuple[str, tuple[Line, ...]], ...] = (("", ours),)
    notes = [
        "Milliseconds from sending to the last token, over all answers of the run: mean and percentiles, and the means "
        "of the first question about a picture (cold) and of the later ones (warm). Tokens: means an answer."
    ]
    if computed:
        notes.append(
            "Operations and bytes moved are computed from the model's shape, for an answer alone and 2 bytes a number "
            "(egm.models.costs)."
        )
    notes += [f"No operations and bytes of {run.name}: {why}." for run, (_, why) in zip(runs, told, strict=True) if why]
    if thought:
        notes += [note for run in runs if (note := _saved(run))]
    if columns_of(runs) == EVALUATION:
        blank = (Cell(),) * len(extra)
        known = tuple(_published_cost(row, blank) for row in published().rows if row.latency_ms is not None)
        sections = ((PUBLISHED, known), (MEASURED, ours))
        notes.append(published().latency_note)
    return Grid("Latency (ms) and tokens", titles, sections, tuple(notes))


def column_title(split: str) -> str:
    """The name of a split as the model card writes it."""
    family, _, part = split.partition("/")
    return f"{_FAMILIES[family]} {part}" if family in _FAMILIES else printable(split)


def parameters_of(model: str) -> int | None:
    """Parameters of a model that is known by its name; None for others."""
    try:
        return get_preset("tiny-s" if model == "egm-tiny" else model).parameters
    except ModelError:
        return None


def _published_line(row: PublishedRow) -> Line:
    figures = [*(row.accuracy[split] for split in EVALUATION), row.average]
    return Line(row.model, tuple(Cell(f"{figure:.1f}") for figure in figures), (row.source, *row.remarks))


def _cost_line(run: Run, extra: Sequence[Cell]) -> Line:
    summary = totals(run.records)
    latency, tokens = summary["latency"], summary["tokens"]
    times = latency["seconds"] or {}

    def ms(value: float | None) -> Cell:
        return Cell(f"{1000 * value:.0f}" if value else "")  # a script takes no time, and that is no latency

    def number(value: float | None) -> Cell:
        return Cell("" if value is None else f"{value:.0f}")

    return Line(
        run.name,
        (
            _size(parameters_of(run.header.model)),
            Cell(str(run.header.concurrency)),
            *(ms(times.get(key)) for key in ("mean", "p50", "p90", "p99")),
            *(ms(_mean(latency[key])) for key in ("cold", "warm")),
            number(latency["tokens_per_second"]),
            number(tokens["reasoning"]),
            number(tokens["completion"]),
            *extra,
        ),
        run.remarks,
    )


def _in_units(costs: AnswerCosts, currency: str) -> Cell:
    mean = costs.mean(currency)
    return Cell("" if mean is None else f"{mean / UNITS[currency]:.4g}")


def _thought(run: Run) -> Cell:
    found = totals(run.records).get("thinking")
    return Cell("" if found is None else f"{100 * found['thought']:.1f}")


def _saved(run: Run) -> str | None:
    """What a gate saved against always thinking, as that was measured when it was fitted."""
    facts: Any = run.header.engine
    for name in ("gate", "expected", "tokens_always"):
        facts = facts.get(name) if isinstance(facts, Mapping) else None
    tokens = totals(run.records)["tokens"]["completion"]
    if not isinstance(facts, int | float) or not facts > 0 or tokens is None:
        return None
    whole = float(facts)
    return (
        f"{run.name} thinks where its gate says so: {tokens:.1f} tokens an answer, direct answers that were not taken "
        f"included, against {whole:.1f} of always thinking on the questions that it was calibrated on "
        f"({100 * (1 - tokens / whole):+.1f} % saved)."
    )


def _published_cost(row: PublishedRow, extra: tuple[Cell, ...]) -> Line:
    blank = Cell()
    tokens = Cell("" if row.tokens is None else f"{row.tokens:.0f}")
    cells = (_size(row.parameters), blank, Cell(f"{row.latency_ms:.0f}"), *[blank] * 7, tokens, *extra)
    return Line(row.model, cells, (row.source, *row.cost_remarks))


def _mean(spread: dict[str, Any] | None) -> float | None:
    return None if spread is None else spread["mean"]


def _size(parameters: int | None) -> Cell:
    return Cell("" if parameters is None else size_text(parameters))
