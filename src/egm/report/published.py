"""Published figures, from the one file that holds them: `published.yaml`, beside this module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from egm.datasets import EVALUATION
from egm.models.presets import PRESETS

_ROUNDING = 0.05 + 1e-9  # published figures have one digit


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """What was published of one model.

    Attributes:
        model: Its name in the source.
        source: Title and address of the source.
        parameters: How many it has.
        accuracy: Percent by split, all eight.
        average: Percent, as published; it need not be the mean of `accuracy`.
        latency_ms: Mean milliseconds of an answer, where published.
        latency_derived: From what the latency was derived; empty where it is published itself.
        tokens: Mean tokens of an answer, where published.
        remarks: What is to be known beside the accuracy, such as where figures disagree.
        cost_remarks: What is to be known beside latency and tokens, such as what was derived.
    """

    model: str
    source: str
    parameters: int
    accuracy: Mapping[str, float]
    average: float
    latency_ms: float | None
    latency_derived: str
    tokens: float | None
    remarks: tuple[str, ...]
    cost_remarks: tuple[str, ...]

    def mean_over(self, splits: tuple[str, ...]) -> float:
        """Percent over some splits: the published average over all eight, the mean of the figures over fewer."""
        return self.average if set(splits) == set(EVALUATION) else _mean([self.accuracy[split] for split in splits])


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """What was published of one model on one benchmark.

    Attributes:
        model: Its name in the source, and how it was asked where that differs.
        split: The benchmark's split.
        value: Percent of what the benchmark counts.
        source: Title and address of the source.
        remarks: What is to be known beside it, such as how it was counted and what disagrees with it.
    """

    model: str
    split: str
    value: float
    source: str
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """All that was published.

    Attributes:
        rows: One a model, on RefCOCO.
        benchmarks: One a model and benchmark.
        accuracy_note: How accuracy was counted.
        latency_note: How latency was measured, as far as it is known.
    """

    rows: tuple[PublishedRow, ...]
    benchmarks: tuple[BenchmarkRow, ...]
    accuracy_note: str
    latency_note: str


@cache
def published() -> Published:
    """Read `published.yaml`, once."""
    content = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
    sources = {key: f"{source['title']}, {source['url']}" for key, source in content["sources"].items()}
    latencies = {row["model"]: row.get("latency_ms") for row in content["rows"]}
    rows = tuple(_row(row, sources, latencies) for row in content["rows"])
    benchmarks = tuple(
        BenchmarkRow(model, split, float(value), sources[part["source"]], tuple(part.get("notes", ())))
        for split, parts in content["benchmarks"].items()
        for part in parts
        for model, value in part["percent"].items()
    )
    return Published(rows, benchmarks, content["accuracy_note"], content["latency_note"])


def _row(row: Mapping[str, Any], sources: Mapping[str, str], latencies: Mapping[str, float | None]) -> PublishedRow:
    accuracy = {split: float(row["accuracy"][split]) for split in EVALUATION}
    remarks, cost_remarks = list(row.get("notes", ())), []
    mean = _mean(list(accuracy.values()))
    if abs(mean - row["average"]) > _ROUNDING:
        remarks.insert(0, f"the average is as published; the mean of the eight figures is {round(mean, 3):g}")
    latency, derived = row.get("latency_ms"), ""
    if "latency_times" in row:
        times, other = row["latency_times"]
        base = latencies[other]
        assert base is not None
        latency = times * base
        derived = f"{times:g} times the {base:g} ms of {other}"
        cost_remarks.append(f"latency derived: {derived}")
    if "tokens_source" in row:
        cost_remarks.append(f"tokens: {sources[row['tokens_source']]}")
    return PublishedRow(
        model=row["model"],
        source=sources[row["source"]],
        parameters=PRESETS[row["size"]].parameters,
        accuracy=accuracy,
        average=float(row["average"]),
        latency_ms=latency,
        latency_derived=derived,
        tokens=row.get("tokens"),
        remarks=tuple(remarks),
        cost_remarks=tuple(cost_remarks),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
