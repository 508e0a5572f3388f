"""Journals as runs: splits that lie apart become one, and what does not belong together is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
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
    def make(
        folder: str,
        records: Sequence[Record],
        model: str = "m",
        *,
        prompt: Mapping[str, str] = MappingProxyType({}),
        settings: Mapping[str, Any] = MappingProxyType({}),
        **header: Any,
    ) -> Path:
        counts = Counter(record.split for record in records)
        datasets = {split: {"n": n, "digest": split} for split, n in counts.items()}
        lines = [
            Header(model, {"name": "qwen3_vl"}, dict(prompt), dict(settings), datasets, **header).to_dict(),
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
    with pytest.raises(
        DataError, match=r"asked x/val for other numbers of boxes \(--expect one and any\): report them"
    ):
        load_runs([first, write("any", [record("1", split="x/val", expect="any")], model="n")])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"settings": {"think": "always", "temperature": 0.0, "votes": 1}, "prompt": {"style": "qwen3"}}, ()),
        ({"settings": {"thinking_budget": 2048}}, ("at most 2,048 tokens of reasoning (--thinking-budget)",)),
        (
            {"settings": {"temperature": 0.6, "votes": 3}},
            ("sampled at temperature 0.6", "3 votes on each question (--votes)"),
        ),
        ({"prompt": {"style": "grounding"}}, ("asked in the words of another prompt (--prompt grounding)",)),
    ],
)
def test_a_run_remarks_on_how_it_was_asked(
    write: WriteRun, record: MakeRecord, asked: dict[str, Any], said: tuple[str, ...]
) -> None:
    [run] = load_runs([write("a", [record("1", split="x/val")], **asked)])
    assert run.remarks == said


def test_a_run_remarks_on_other_numbers_of_boxes_than_its_samples_expect(write: WriteRun, record: MakeRecord) -> None:
    own = [record("1", split="x/val", expect="any"), record("2", split="x/val", expect="any")]
    two = ((0.0, 0.0, 9.0, 9.0), (20.0, 0.0, 29.0, 9.0))
    both = Record("2", "a.jpg", "it", split="y/val", truth=None, expect="all", truths=two, failure="no_box")
    mixed = [record("1", split="y/val", expect="any"), both]
    benchmark = [record("1", split="finecops-ref/positive", expect="any")]
    asked_for = "asked for one box or none (--expect any)"
    for number, (records, said) in enumerate(((own, True), (mixed, False), (benchmark, False))):
        [run] = load_runs([write(f"{number}", records)])
        assert (asked_for in run.remarks) is said, records
