"""Label Studio's tasks: out, and back as a dataset; tests/integration/test_doors.py has its SDK look at them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from egm.boxes import Box
from egm.datasets import open_dataset
from egm.datasets.dataset import Dataset
from egm.doors.answers import read_answers
from egm.doors.label_studio import answer_tasks, dataset_tasks
from egm.errors import DataError, ImageError
from egm.types import Sample

from .conftest import MakeRun

SIZE = (640, 427)
BOX = Box(12.5, 3, 639.25, 427)


def sample(**values: Any) -> Sample:
    return Sample(**{"id": "a/1", "image": Path("a b.jpg"), "phrase": "the cup", "box": BOX, "size": SIZE, **values})


def back(tasks: list[dict[str, Any]], folder: Path) -> list[Sample]:
    (folder / "tasks.json").write_text(json.dumps(tasks))
    return list(open_dataset(folder / "tasks.json"))


@pytest.mark.parametrize("url", ["", "/data/local-files/?d="])
def test_samples_come_back_as_they_went(tmp_path: Path, url: str) -> None:
    samples = [
        sample(),
        sample(id="a/2", phrase="nothing", box=None, boxes=(), expect="any"),
        sample(id="a/3", phrase="cups", box=None, boxes=(BOX, Box(1, 2, 3, 4)), expect="all"),
        sample(id="a/4", phrase="all of it", amodal=True, box=Box(-20, -5, 700, 430)),
    ]
    tasks = dataset_tasks(Dataset("a", samples), url=url)
    assert tasks[0]["data"]["image"] == (f"{url}a%20b.jpg" if url else "a b.jpg")
    found = back(tasks, tmp_path)
    for before, after in zip(samples, found, strict=True):
        assert (after.id, after.image, after.phrase, after.expect, after.amodal) == (
            *(before.id, before.image, before.phrase, before.expect, before.amodal),
        )
        assert [*map(tuple, after.truths or ())] == [pytest.approx(tuple(box)) for box in before.truths or ()]
        assert after.size == (SIZE if before.truths else None)


def test_a_rectangle_is_in_per_cent() -> None:
    (task,) = dataset_tasks(Dataset("a", [sample(box=Box(64, 0, 320, 427))]))
    value = task["annotations"][0]["result"][0]["value"]
    assert [value[key] for key in ("x", "y", "width", "height")] == [10, 0, 40, 100]


def test_answers_are_predictions_and_the_truth_an_annotation(make_run: MakeRun) -> None:
    answers = read_answers(make_run("test-all", [None, [[0, 0, 500, 500]], "no</think>idea"], sure=[-0.1, -0.2, -0.3]))
    tasks = answer_tasks(answers)
    for answer, task in zip(answers, tasks, strict=True):
        (prediction,) = task["predictions"]
        assert (len(prediction["result"]), prediction["model_version"]) == (len(answer.boxes), "replayed")
        assert len(task["annotations"][0]["result"]) == len(answer.truths or ())
        assert task["data"]["phrase"] == answer.phrase
    scores = [task["predictions"][0].get("score") for task in tasks]
    assert scores[1] == pytest.approx(0.8187, abs=1e-4)
    assert scores[2] is None
    assert tasks[2]["data"]["failure"] == answers[2].failure == "no_box"


def test_answers_of_unknown_truth_are_left_to_be_annotated(tmp_path: Path) -> None:
    row = {"image": "a.png", "phrase": "x", "box": [1, 2, 3, 4], "boxes": [{"box": [1, 2, 3, 4]}], "size": [64, 48]}
    (tmp_path / "answers.jsonl").write_text(json.dumps({**row, "failure": None, "model": "m"}))
    (task,) = answer_tasks(read_answers(tmp_path / "answers.jsonl"))
    assert task["annotations"] == []
    with pytest.raises(DataError, match="has 0 annotations, and one is needed: label it"):
        back([task], tmp_path)


def test_what_label_studio_adds_is_passed_over(tmp_path: Path) -> None:
    (task,) = dataset_tasks(Dataset("a", [sample()]))
    annotation = task["annotations"][0]
    regions = [*annotation["result"], {"type": "choices", "value": {"choices": ["sure"]}, "from_name": "c"}]
    cancelled = {"was_cancelled": True, "result": []}
    exported = {
        **task,
        "id": 7,
        "file_upload": "1234abcd-a.jpg",
        "project": 3,
        "annotations": [
            cancelled,
            {**annotation, "id": 9, "completed_by": 1, "was_cancelled": False, "result": regions},
        ],
        "data": {"image": "/data/upload/3/1234abcd-a.jpg", "phrase": "the cup"},
    }
    (found,) = back([exported], tmp_path)
    assert (found.id, found.image, found.size) == ("7", Path("1234abcd-a.jpg"), SIZE)
    assert tuple(found.box or ()) == pytest.approx(tuple(BOX))


def broken(change: dict[str, Any], value: dict[str, Any] | None = None) -> dict[str, Any]:
    (task,) = dataset_tasks(Dataset("a", [sample()]))
    region = task["annotations"][0]["result"][0]
    region["value"] |= value or {}
    return {**task, **change}


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (broken({}, {"rotation": 12}), "rotated by 12 degrees"),
        (broken({}, {"width": 0}), "is no box"),
        (broken({}, {"x": "1"}), "lacks x, y, width, height in per cent"),
        (broken({"annotations": [{"result": []}]}), "has no rectangle where one box is expected"),
        (broken({"annotations": [{"result": []}, {"result": []}]}), "has 2 annotations"),
        (broken({"annotations": [{"result": 3}]}), "must be a list of objects"),
        (broken({"data": 3}), "data must be an object"),
        (broken({"data": {"image": "a.jpg"}}), "has no phrase"),
        (broken({"data": {"image": "https://x/a.jpg", "phrase": "x"}}), "is a URL, and nothing is fetched"),
        (broken({"data": {"image": "/data/local-files/?d=..%2Fa.jpg", "phrase": "x"}}), "lies outside any folder"),
        (broken({"data": {"image": "a.jpg", "phrase": "x", "expect": "two"}}), "data.expect 'two' is none of"),
    ],
)
def test_a_task_that_says_no_box_is_refused(tmp_path: Path, task: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=rf"tasks.json row 1: .*{said}"):
        back([task], tmp_path)


def test_pictures_that_are_no_files_are_refused() -> None:
    with pytest.raises(DataError, match="--pictures DIR"):
        dataset_tasks(open_dataset("synthref/val", first=1))


def test_a_size_that_a_row_does_not_say_is_read_from_the_picture(tmp_path: Path) -> None:
    unsized = Dataset("a", [sample(size=None, image=tmp_path / "a b.jpg")], root=tmp_path)
    with pytest.raises(ImageError, match=r"a/1 says no width and height.*a b\.jpg"):
        dataset_tasks(unsized)
    Image.new("RGB", SIZE).save(tmp_path / "a b.jpg")
    assert dataset_tasks(unsized) == dataset_tasks(Dataset("a", [sample()]))


def test_the_picture_is_found_where_its_name_leads(tmp_path: Path) -> None:
    Image.new("RGB", SIZE).save(tmp_path / "a b.jpg")
    (tmp_path / "tasks.json").write_text(
        json.dumps(dataset_tasks(Dataset("a", [sample()]), url="/data/local-files/?d="))
    )
    (found,) = open_dataset(tmp_path / "tasks.json", images=tmp_path)
    assert found.image == tmp_path / "a b.jpg"
