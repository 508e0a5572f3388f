from __future__ import annotations

from dataclasses import replace

import pytest

from egm.evaluate import latency_totals, totals
from egm.evaluate.progress import RunningCounts
from egm.journal import Record
from egm.types import Score


def test_latency_keeps_cold_and_warm_queue_and_first_token_apart() -> None:
    def record(seconds: float, **facts: object) -> Record:
        return Record("x", "i", "p", (0, 0, 1, 1), seconds=seconds, completion_tokens=10, **facts)  # type: ignore[arg-type]

    records = [record(i / 100, queue_seconds=1.0) for i in range(1, 101)]
    records += [record(5.0, cold=True, first_token_seconds=2.0), record(99.0, failure="error")]
    result = latency_totals(records)
    assert result["warm"] == pytest.approx({"n": 100, "mean": 0.505, "p50": 0.505, "p90": 0.901, "p99": 0.9901})
    assert result["cold"] == {"n": 1, "mean": 5.0, "p50": 5.0, "p90": 5.0, "p99": 5.0}
    assert result["seconds"]["n"] == 101
    assert result["first_token"]["p50"] == 2.0
    assert result["queue"]["mean"] == pytest.approx(100 / 101)
    assert result["tokens_per_second"] == pytest.approx(1010 / 55.5)


def test_tokens_of_reasoning_and_answer() -> None:
    row = Record("x", "i", "p", (0, 0, 1, 1), prompt_tokens=300, completion_tokens=50, reasoning_tokens=30)
    other = replace(row, completion_tokens=100, reasoning_tokens=None)
    assert totals([row, other])["tokens"] == {"prompt": 300, "reasoning": 30, "answer": 20, "completion": 75}
    empty = totals([])
    assert (empty["n"], empty["accuracy"], empty["latency"]["seconds"]) == (0, None, None)


def test_a_hit_is_a_hit_in_every_count() -> None:
    below, at = 0.49999, 0.5
    rows = [Record("x", "i", "p", (0, 0, 1, 1), box=(0, 0, 1, 1), iou=iou) for iou in (below, at)]
    assert [row.hit() for row in rows] == [Score(iou).hit() for iou in (below, at)] == [False, True]
    assert totals(rows)["accuracy"] == 0.5
    counts = RunningCounts(2, max_errors=0.0)
    for row in rows:
        counts.add(row)
    assert (counts.done, counts.hits) == (2, 1)
