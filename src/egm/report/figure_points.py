"""What the figures show: a point a model, its accuracy against what an answer of it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from egm.datasets import EVALUATION
from egm.evaluate import totals
from egm.report.published import published
from egm.report.run_tables import parameters_of
from egm.report.runs import Run, columns_of


@dataclass(frozen=True, slots=True)
class Point:
    """One model in a figure.

    Attributes:
        name: What to call it.
        accuracy: What counts in the splits, in percent.
        low: Lower end of its 95 % interval; None for published figures.
        high: Upper end.
        milliseconds: Mean of an answer; None where unknown, or where a script answered.
        tokens: Mean of an answer; None where unknown.
        parameters: None where unknown.
        concurrency: Most questions that were answered together; None where unknown.
        is_published: Whether it was measured elsewhere.
        derived: From what `milliseconds` was derived; empty where it was measured.
    """

    name: str
    accuracy: float
    low: float | None
    high: float | None
    milliseconds: float | None
    tokens: float | None
    parameters: int | None
    concurrency: int | None
    is_published: bool
    derived: str = ""


def points_of(runs: Sequence[Run], splits: tuple[str, ...]) -> list[Point]:
    """Points of the runs and, on RefCOCO, of the published rows before them.

    Args:
        runs: The runs.
        splits: Splits that all of them have, over which accuracy is averaged.
    """
    points = []
    if columns_of(runs) == EVALUATION:
        points = [
            Point(
                name=row.model,
                accuracy=row.mean_over(splits),
                low=None,
                high=None,
                milliseconds=row.latency_ms,
                tokens=row.tokens,
                parameters=row.parameters,
                concurrency=None,
                is_published=True,
                derived=row.latency_derived,
            )
            for row in published().rows
        ]
    for run in runs:
        average = run.average(splits)
        if average is None:
            raise ValueError(f"{run.name} lacks one of {splits}")
        summary = totals([record for record in run.records if record.split in splits])
        seconds = summary["latency"]["seconds"]
        accuracy, low, high = (100 * value for value in (average.value, average.low, average.high))
        points.append(
            Point(
                run.name,
                accuracy,
                low,
                high,
                (1000 * seconds["mean"] or None) if seconds else None,
                summary["tokens"]["completion"] or None,
                parameters_of(run.header.model),
                run.header.concurrency,
                False,
            )
        )
    return points
