"""Journals as runs: splits that lie apart become one, and what does not belong together is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from egm.errors import DataError
from egm.journal import Header, Record
from egm.report.runs import load_runs

from .conftest import MakeRecord

WriteRun = Callable[..., Path]
OFF = (300.0, 300.0, 310.0, 310.0)


@pytest.fixture
def write(tmp_path: Path) -> WriteRun:
    def make(folder: str, records: Sequence[Record], model: str = "m", **header: Any) -> Path:
        counts = Counter(record.split for record in records)
        datasets = {split: {"n": n, "digest": split} for split, n in counts.items()}
        lines = [
            Header(model, {"name": "qwen3_vl"}, {}, {}, datasets, **header).to_dict(),
            *(r.to_dict() for r in records),
        ]
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return tmp_path / folder

    return make


def test_splits_that_lie_apart_become_one_run(write: WriteRun, record: MakeRecord) -> None:
    a = write("a", [record("1", split="x/val"), record("2", split="x/val", box=OFF)])
    b = write("b", [record("1", split="x/test")], started="later")
    [run] = load_runs([a, b])
    assert (run.name, dict(run.split_sizes)) == ("m", {"x/val": 2, "x/test": 1})
    average = run.average(("x/val", "x/test"))
    assert average is not None
    assert average.value == pytest.approx((0.5 + 1.0) / 2)


def test_other_settings_or_the_same_split_stay_two_runs(write: WriteRun, record: MakeRecord) -> None:
    a = write("a", [record("1", split="x/val")])
    b = write("b", [record("1", split="x/test")], concurrency=8)
    c = write("c", [record("1", split="x/val")])
    assert [run.name for run in load_runs([a, b])] == ["m (a)", "m (b)"]
    assert len(load_runs([a, c])) == 2


def test_mixed_datasets_are_refused(write: WriteRun, record: MakeRecord) -> None:
    known = write("known", [record("1", split="refcoco/val")])
    other = write("other", [record("1", split="synthref/val")], model="n")
    with pytest.raises(DataError, match=r"mixed datasets.*refcoco/val.*synthref/val"):
        load_runs([known, other])


def test_other_samples_of_a_split_are_refused(write: WriteRun, record: MakeRecord) -> None:
    first = write("first", [record("1", split="x/val")])
    for number, other in enumerate(
        (
            [record("1", split="x/val", phrase="mug")],
            [record("1", split="x/val", truth=OFF)],
            [record("9", split="x/val")],
        )
    ):
        with pytest.raises(DataError, match="different samples of x/val"):
            load_runs([first, write(f"other{number}", other, model="n")])
