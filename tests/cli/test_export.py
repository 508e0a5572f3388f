"""`egm export`, and the formats of `egm data convert` that are other tools' tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from .conftest import Egm


@pytest.fixture
def run(egm: Egm, tmp_path: Path) -> Path:
    (tmp_path / "script.txt").write_text('There.</think> [{"bbox_2d": [0, 0, 900, 900]}]\nno</think>idea\n')
    assert egm("eval", "synthref/val", "--limit", 2, "--script", "script.txt", "--out", "run").code == 0
    return tmp_path / "run"


def test_results_and_the_truth_beside_them(egm: Egm, run: Path, tmp_path: Path) -> None:
    outcome = egm("export", run, "out/r.json", "--format", "coco-results")
    assert (outcome.code, outcome.out.split()) == (0, ["out/r.json", "out/r.truth.json"])
    assert outcome.next == "COCO('out/r.truth.json').loadRes('out/r.json') in pycocotools"
    assert outcome.err == "note: 1 of 1 boxes have no confidence, and get the score 1: no precision ranks those\n"
    truth = json.loads((tmp_path / "out" / "r.truth.json").read_text())
    assert (len(truth["images"]), len(truth["annotations"])) == (2, 2)
    (result,) = json.loads((tmp_path / "out" / "r.json").read_text())
    assert (result["image_id"], result["bbox"][:2]) == (1, [0, 0])
    again = egm("export", run, "out/r.json", "--format", "coco-results")
    assert (again.code, again.err) == (2, "error: 'out/r.json' is there already: give another name, or --force\n")
    assert egm("export", run, "out/r.json", "--format", "coco-results", "--force").code == 0


def test_tasks_with_their_interface_and_pictures(egm: Egm, run: Path, tmp_path: Path) -> None:
    command = (
        "export",
        run,
        "t.json",
        "--format",
        "label-studio",
        "--pictures",
        "seen",
        "--url",
        "/data/local-files/?d=",
    )
    outcome = egm(*command)
    assert (outcome.code, outcome.err, outcome.out.split()) == (0, "", ["t.json", "t.xml"])
    assert "RectangleLabels" in (tmp_path / "t.xml").read_text()
    checked = egm("data", "check", "t.json", "--images", "seen", "--no-leaks")
    assert (checked.code, checked.out) == (0, "t: 2 samples, no problems\n")


def test_what_ground_prints_becomes_tasks(egm: Egm, tmp_path: Path) -> None:
    from egm.datasets.synthetic.example import example_picture

    (tmp_path / "shapes.png").write_bytes(example_picture().read_bytes())
    answer = egm("ground", "shapes.png", "the cross farthest from the square", "--json")
    (tmp_path / "answers.jsonl").write_text(answer.out)
    assert egm("export", "answers.jsonl", "tasks.json", "--format", "label-studio").code == 0
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    assert (task["data"]["image"], task["annotations"], len(task["predictions"][0]["result"])) == ("shapes.png", [], 1)
    (tmp_path / "r.truth.json").write_text("of an earlier run")
    kept = egm("export", "answers.jsonl", "r.json", "--format", "coco-results")
    assert (kept.code, (tmp_path / "r.truth.json").exists()) == (2, True)
    bare = egm("export", "answers.jsonl", "r.json", "--format", "coco-results", "--force")
    assert (bare.code, bare.out, bare.next) == (0, "r.json\n", "")
    assert not (tmp_path / "r.truth.json").exists()


def test_pictures_are_named_below_the_folder_that_is_given(egm: Egm, tmp_path: Path) -> None:
    (tmp_path / "all" / "deep").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(tmp_path / "all" / "deep" / "a.png")
    row = {"image": "deep/a.png", "sent": "the cup", "bbox": [1, 2, 30, 40]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (tmp_path / "script.txt").write_text('There.</think> [{"bbox_2d": [0, 0, 900, 900]}]\n')
    asked = egm("eval", "rows.jsonl", "--images", "all", "--script", "script.txt", "--out", "run")
    assert asked.code == 0

    def name(*more: str) -> str:
        outcome = egm("export", "run", "t.json", "--force", "--format", "label-studio", *more)
        assert (f"relative to {tmp_path / 'all' / 'deep'}" in outcome.err) == (not more), outcome.err
        return str(json.loads((tmp_path / "t.json").read_text())[0]["data"]["image"])

    assert name() == "a.png"  # the folder that all pictures of this run share
    assert name("--images", "all") == "deep/a.png"
    assert name("--images", ".", "--url", "/data/local-files/?d=") == "/data/local-files/?d=all/deep/a.png"
    (tmp_path / "other").mkdir()
    outside = egm("export", "run", "u.json", "--format", "label-studio", "--images", "other")
    assert (outside.code, "is not below 'other'" in outside.err, (tmp_path / "u.json").exists()) == (2, True, False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("r.txt", "--format", "coco-results"), "end its name in .json"),
        (("r.json", "--format", "coco-results", "--url", "/x"), "--url is for label-studio, and not for coco-results"),
        (("r.json", "--format", "label-studio", "--field", "x"), "--field is for fiftyone, and not for label-studio"),
        (("r.json", "--format", "coco-results", "--pictures", "x"), "--pictures is for fiftyone and label-studio"),
        (("r", "--format", "fiftyone", "--field", "ground_truth"), "'ground_truth' is the field of the true boxes"),
        (("r", "--format", "fiftyone", "--field", "a b"), "'a b' cannot be the name of a field"),
    ],
)
def test_what_does_not_fit_together_is_refused(egm: Egm, run: Path, arguments: tuple[str, ...], said: str) -> None:
    outcome = egm("export", run, *arguments)
    assert outcome.code == 2
    assert said in outcome.err
    assert not list(run.parent.glob("r.*"))


def test_a_folder_is_no_file_to_write(egm: Egm, run: Path, tmp_path: Path) -> None:
    for name in ("a.json", "b.truth.json"):
        (tmp_path / name).mkdir()
        outcome = egm("export", run, f"{name[0]}.json", "--format", "coco-results", "--force")
        assert (outcome.code, outcome.err) == (2, f"error: '{name}' is a folder: give another name for the file\n")
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["a.json", "b.truth.json"]


def test_fiftyone_that_is_not_installed_is_named(egm: Egm, run: Path) -> None:
    outcome = egm("export", run, "name", "--format", "fiftyone")
    assert outcome.code == 2
    assert 'pip install "egm-grounding[fiftyone]"' in outcome.err


def test_a_dataset_becomes_a_task_of_lmms_eval(egm: Egm, tmp_path: Path) -> None:
    assert egm("data", "synthetic", "--split", "test-simple", "--scenes", 1, "--out", "s").code == 0
    outcome = egm("data", "convert", "s/test-simple.jsonl", "tasks/shapes.yaml", "--codec", "qwen3_vl_instruct")
    assert (outcome.code, outcome.out) == (0, "tasks/shapes.yaml\n")
    assert (outcome.err, outcome.next) == ("", "lmms-eval --include_path tasks --tasks egm_shapes")
    row = json.loads((tmp_path / "tasks" / "shapes.jsonl").read_text().splitlines()[0])
    assert row["codec"] == "qwen3_vl_instruct"
    assert (tmp_path / "s" / row["image"]).is_file()
    beside = egm("data", "convert", "s/test-simple.jsonl", "tasks/other.yaml")
    assert beside.code == 0
    (tmp_path / "tasks" / "other.yaml").unlink()
    again = egm("data", "convert", "s/test-simple.jsonl", "tasks/other.yaml")
    assert "'tasks/other.jsonl' is there already" in again.err


def test_a_dataset_becomes_tasks_of_label_studio(egm: Egm, tmp_path: Path) -> None:
    assert egm("data", "synthetic", "--split", "test-all", "--scenes", 2, "--out", "s").code == 0
    outcome = egm("data", "convert", "s/test-all.jsonl", "s/tasks.json", "--format", "label-studio")
    assert (outcome.code, outcome.out.split()) == (0, ["s/tasks.json", "s/tasks.xml"])
    assert egm("data", "convert", "s/tasks.json", "s/back.jsonl", "--images", "s").code == 0
    before, after = (
        [json.loads(line) for line in (tmp_path / "s" / name).read_text().splitlines()]
        for name in ("test-all.jsonl", "back.jsonl")
    )
    keys = ("id", "image", "sent", "bbox", "bboxes", "expect")
    assert [[row.get(key) for key in keys] for row in before] == [[row.get(key) for key in keys] for row in after]
    wrong = egm("data", "convert", "s/test-all.jsonl", "s/t.jsonl", "--format", "label-studio")
    assert "end its name in .json" in wrong.err
    assert "--url is for label-studio" in egm("data", "convert", "s/test-all.jsonl", "x.json", "--url", "/a").err
