"""Evaluation files for the Hub: read back by huggingface_hub's own classes, and refused for what is no result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResultEntry, parse_eval_result_entries

from egm.datasets.benchmarks import hub_split
from egm.errors import DataError
from egm.journal import Header, Record
from egm.report.hub_files import splits_left_out, write_hub_files
from egm.report.runs import Run

from .conftest import MakeRecord

OFF = (300.0, 300.0, 310.0, 310.0)
MakeRun = Callable[..., Run]


@pytest.fixture
def make(record: MakeRecord) -> MakeRun:
    """A run of two splits of a benchmark: of four questions one is missed, and the other split is all right."""

    def make_run(*, splits: tuple[str, ...] = ("hc-refloco/test", "own/test"), **header: Any) -> Run:
        records: list[Record] = [
            record(f"{n}", f"{n}.jpg", split=split, **({"box": OFF} if split == splits[0] and not n else {}))
            for split in splits
            for n in range(4)
        ]
        counts = dict.fromkeys(splits, 4)
        facts: dict[str, Any] = {
            "engine": {"backend": "OpenAIBackend"},
            "started": "2026-11-30T10:00:00+00:00",
            "versions": {"egm": "0.1.0"},
            "settings": {"temperature": 0.6, "votes": 3},
            **header,
        }
        datasets = {split: {"n": 4} for split in splits}
        known = Header("m", {"name": "qwen3_vl"}, {}, facts.pop("settings"), datasets, **facts)
        return Run("mine", known, records, counts)

    return make_run


def test_results_are_what_the_hubs_own_classes_read(make: MakeRun, tmp_path: Path) -> None:
    written = write_hub_files(make(), tmp_path, {"own": "me/own-set"})
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "model/.eval_results/hc-refloco.yaml",
        "benchmarks/hc-refloco/eval.yaml",
        "model/.eval_results/own.yaml",
        "benchmarks/own/eval.yaml",
    ]
    [first] = parse_eval_result_entries(yaml.safe_load(written[0].read_text()))
    assert isinstance(first, EvalResultEntry)
    assert (first.dataset_id, first.task_id, first.value) == ("Jinjing713/HC-RefLoCo", "test", 75.0)
    assert first.date == "2026-11-30T10:00:00+00:00"
    assert first.notes is not None
    for said in ("Acc@0.5, 95 % interval", "4 questions", "egm 0.1.0, codec qwen3_vl", "temperature 0.6", "3 votes"):
        assert said in first.notes
    [second] = parse_eval_result_entries(yaml.safe_load(written[2].read_text()))
    assert (second.dataset_id, second.value) == ("me/own-set", 100.0)


def test_a_benchmark_says_its_tasks(make: MakeRun, tmp_path: Path) -> None:
    whole = yaml.safe_load(write_hub_files(make(), tmp_path, {"own": "me/own-set"})[1].read_text())
    assert [task["id"] for task in whole["tasks"]] == ["val", "test"]  # all of HC-RefLoCo's
    written = write_hub_files(make(splits=("own/a", "own/b")), tmp_path, {"own": "me/own-set"})
    content = yaml.safe_load(written[1].read_text())
    assert content.keys() == {"name", "description", "evaluation_framework", "tasks"}
    assert content["tasks"] == [
        {"id": "a", "config": "default", "split": "a"},
        {"id": "b", "config": "default", "split": "b"},
    ]
    results = parse_eval_result_entries(yaml.safe_load(written[0].read_text()))
    assert [entry.task_id for entry in results] == [task["id"] for task in content["tasks"]]


def test_tasks_are_the_splits_that_the_hub_has(make: MakeRun, tmp_path: Path) -> None:
    run = make(splits=("ref-l4/val", "hc-refloco/test"))
    written = write_hub_files(run, tmp_path, {})
    tasks = {
        path.parent.name: yaml.safe_load(path.read_text())["tasks"] for path in written if path.name == "eval.yaml"
    }
    assert tasks["ref-l4"] == [{"id": name, "config": "ref_l4", "split": name} for name in ("val", "test")]
    assert {task["config"] for task in tasks["hc-refloco"]} == {"hc_refloco"}
    named = {split: hub_split(split) for split in ("ref-adv-s/test", "refcoco-m/val", "ref-l4/all", "own/x")}
    assert list(named.values()) == [("default", "train"), ("default", "validation"), None, ("default", "x")]
    whole = [replace(run.records[0], split="ref-l4/all")] * 45_341
    both = replace(run, records=[*run.records, *whole], split_sizes={**run.split_sizes, "ref-l4/all": len(whole)})
    assert splits_left_out(both, {}) == ["ref-l4/all"]
    results = yaml.safe_load(write_hub_files(both, tmp_path, {})[0].read_text())
    assert [entry["dataset"]["task_id"] for entry in results] == ["val"]
    with pytest.raises(DataError, match="the Hub has no split ref-l4/all: ask the splits"):
        write_hub_files(replace(run, records=whole, split_sizes={"ref-l4/all": len(whole)}), tmp_path, {})
    own = {"ref-l4": "me/ref-l4"}
    assert splits_left_out(both, own) == []
    of_mine = yaml.safe_load(write_hub_files(both, tmp_path, own)[1].read_text())
    assert [task["split"] for task in of_mine["tasks"]] == ["val", "test", "all"]


def test_notes_say_what_a_report_remarks_on(make: MakeRun, tmp_path: Path) -> None:
    run = make(settings={"think": "never", "stop": ["x"]})
    asked = replace(run.header, prompt={"style": "grounding"})
    records = [replace(record, expect="any") for record in run.records]
    written = write_hub_files(replace(run, header=asked, records=records), tmp_path, {"own": "me/own-set"})
    [entry] = parse_eval_result_entries(yaml.safe_load(written[0].read_text()))
    assert entry.notes is not None
    assert "asked for direct answers, without reasoning (--think never)" in entry.notes
    assert "answers end behind their box (--cut-tail)" in entry.notes
    assert "(--prompt grounding)" in entry.notes
    assert "(--expect any)" in entry.notes


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"engine": {"script": "abc"}}, "no model was evaluated"),
        ({"engine": {"backend": "ReplayBackend"}}, "no model was evaluated"),
        ({"shard": {"number": 1, "count": 2, "of": {}}}, "is no whole run (only shard 1/2"),
        ({"splits": ("ref-adv-s/test",)}, "4 of the 1,142 expressions of ref-adv-s/test"),
        ({"splits": ("refcoco/val",)}, "4 of the 10,834"),
    ],
)
def test_what_is_no_result_is_refused(make: MakeRun, tmp_path: Path, header: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        write_hub_files(make(**header), tmp_path, {"own": "me/own-set"})
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("datasets", "said"),
    [({}, "say it with --hub-dataset own=OWNER/NAME"), ({"own": "no/such/name"}, "is no dataset of the Hub")],
)
def test_a_dataset_that_the_hub_does_not_know_is_asked_for(
    make: MakeRun, tmp_path: Path, datasets: dict[str, str], said: str
) -> None:
    with pytest.raises(DataError) as caught:
        write_hub_files(make(), tmp_path, datasets)
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())  # all of them, or none
