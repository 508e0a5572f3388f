"""Ref-Adv's published predictions: scored as its own script does, compared, and matched to the dataset's rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from egm.boxes import Box
from egm.errors import DataError
from egm.report import compare, interval_summary, read_records
from egm.report.predictions import model_of
from egm.report.runs import load_runs
from egm.types import Sample

ROWS = Path(__file__).parents[1] / "fixtures" / "ref_adv"
DIRECT, THINKING = ROWS / "direct.jsonl", ROWS / "thinking.jsonl"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


@pytest.mark.parametrize("path", [DIRECT, THINKING])
def test_real_rows_score_as_their_own_script_scored_them(path: Path) -> None:
    records = read_records(path)
    for record, row in zip(records, rows(path), strict=True):
        assert record.iou == pytest.approx(row["first_iou"])
        assert record.hit() == row["first_hit"]
        assert (record.failure == "no_box") == bool(row["parse_error"])
        assert (record.id, record.split) == (f"ref-adv-s/test/{row['row_idx'] + 1}", "ref-adv-s/test")


def test_direct_against_thinking_is_paired_by_row() -> None:
    found = compare(read_records(DIRECT), read_records(THINKING))
    assert (found.rows, found.mcnemar.only_a, found.mcnemar.only_b, found.mcnemar.both) == (9, 1, 2, 2)
    assert found.accuracy.analytic.value == pytest.approx(1 / 9)


def test_accuracy_by_distractors_and_negation() -> None:
    groups = interval_summary(read_records(THINKING)).groups
    assert {name: estimate.rows for name, estimate in groups["distractors"].items()} == {"1-3": 4, "4-6": 4, "7+": 1}
    assert {name: estimate.value for name, estimate in groups["negation"].items()} == {
        "no": pytest.approx(1 / 4),
        "yes": pytest.approx(3 / 5),
    }


def test_runs_are_named_by_model_and_prompt(tmp_path: Path) -> None:
    assert model_of(DIRECT) == "Qwen/Qwen3-VL-8B-Instruct"
    other = write(tmp_path / "a.jsonl", [{**row, "prompt_id": "cot"} for row in rows(DIRECT)])
    assert model_of(other) == "Qwen/Qwen3-VL-8B-Instruct, CoT prompt"
    first, second = load_runs([DIRECT, THINKING])
    assert (first.name, second.name) == ("Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen3-VL-8B-Thinking")
    assert first.remarks == ("9 of the 1,142 expressions of ref-adv-s/test",)
    assert first.accuracy["ref-adv-s/test"].value == pytest.approx(3 / 9)


def test_rows_fit_the_samples_of_the_dataset_by_number(tmp_path: Path) -> None:
    samples = [
        ("ref-adv-s/test", Sample(f"ref-adv-s/test/{row['row_idx'] + 1}", Path(row["file_name"]), row["normal_caption"],
                                  Box(*row["gt_bbox_xyxy"]), (640, 480)))
        for row in rows(DIRECT)
    ]  # fmt: skip
    assert [record.size for record in read_records(DIRECT, samples=samples)] == [(640, 480)] * 9
    moved = write(tmp_path / "a.jsonl", [{**rows(DIRECT)[0], "row_idx": 1}])
    with pytest.raises(DataError, match="its phrase is"):
        read_records(moved, samples=samples, partial=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"row_idx": -1}, "line 1: row_idx must be"),
        ({"row_idx": True}, "line 1: row_idx must be"),
        ({"pred_box_xyxy_first": [1, 2, 3]}, "line 1: pred_box_xyxy_first"),
        ({"gt_bbox_xyxy": [5, 5, 1, 1]}, "line 1: gt_bbox_xyxy"),
        ({"gt_bbox_xyxy": None}, "line 1 carries no true box"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "a.jsonl", [{**rows(DIRECT)[0], **change}])
    with pytest.raises(DataError) as caught:
        read_records(path)
    assert said in str(caught.value)


def test_a_box_without_area_is_a_miss_and_two_models_in_a_file_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{**rows(DIRECT)[0], "pred_box_xyxy_first": [5, 5, 5, 5]}])
    assert read_records(path)[0].failure == "degenerate"
    both = write(tmp_path / "b.jsonl", [rows(DIRECT)[0], {**rows(THINKING)[1]}])
    with pytest.raises(DataError, match="holds answers of 2 models"):
        load_runs([both])


def test_rows_that_say_how_their_box_is_meant(tmp_path: Path) -> None:
    samples = [("ref-l4/val", Sample(str(n), Path("a.jpg"), f"cup {n}", Box(10, 20, 40, 60))) for n in range(3)]
    path = write(
        tmp_path / "a.jsonl",
        [
            {"id": 0, "pred_bbox": [10, 20, 30, 40], "format": "xywh"},
            {"id": 1, "pred_bbox": [10, 20, 40, 60], "format": "xyxy"},
            {"id": 2, "pred_bbox": [0, 0, 0, 0], "format": "xyxy"},
        ],
    )
    records = read_records(path, samples=samples)
    assert [(record.iou, record.failure) for record in records] == [(1.0, None), (1.0, None), (0.0, "degenerate")]
    with pytest.raises(DataError, match="line 1: format must be xyxy or xywh"):
        read_records(write(tmp_path / "b.jsonl", [{"id": 0, "pred_bbox": [1, 2, 3, 4]}]), samples=samples)
