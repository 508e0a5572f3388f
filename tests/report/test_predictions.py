"""Other people's files, row by row: what they answer, how they are read, and what is refused."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from egm.boxes import Box
from egm.codecs import get_codec
from egm.errors import DataError
from egm.journal import Header, Journal, Record
from egm.report.prediction_files import read_predictions
from egm.report.predictions import Reading, neighbours_in, read_records
from egm.types import Sample

QWEN3 = Reading(get_codec("qwen3_vl_instruct"))
SEEN = Reading(get_codec("qwen2_5_vl"))
ORIGINAL = Reading(get_codec("qwen2_5_vl"), "original")
IMAGE = "COCO_train2014_000000580957.jpg"
SAMPLES = [
    ("refcoco/val", Sample("refcoco/val/1", Path(IMAGE), "left bowl", Box(64, 48, 320, 240), (640, 480))),
    ("refcoco/val", Sample("refcoco/val/2", Path(IMAGE), "Right bowl", Box(320, 48, 640, 240), (640, 480))),
    ("refcoco/val", Sample("refcoco/val/3", Path(IMAGE), "left bowl", Box(0, 0, 32, 48), (640, 480))),
]
TEXT = '[{"bbox_2d": [100, 100, 500, 500]}]'  # on 0-1000, the first sample's box
PIXELS = '{"bbox_2d": [64, 48, 320, 240]}'


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def vlm_r1(answer: str = PIXELS, phrase: str = "left bowl", truth: Any = (64, 48, 320, 240)) -> dict[str, Any]:
    question = f"Please provide the bounding box coordinate of the region this sentence describes: {phrase}."
    return {"question": question, "ground_truth": truth, "model_output": answer, "extracted_answer": [9, 9, 9, 9]}


def test_texts_by_id_by_image_and_phrase_and_boxes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        {"image": "/elsewhere/train2014/000000580957.png", "sent": " RIGHT  bowl. ", "text": "no such thing"},
        {"id": "refcoco/val/1", "text": TEXT},
        {"id": "refcoco/val/3", "box": [0, 0, 32, 24]},
    )
    right, left, half = read_records(path, samples=SAMPLES, reading=QWEN3)
    assert (right.id, right.failure, right.iou, right.phrase) == ("refcoco/val/2", "refused", 0.0, "Right bowl")
    assert (left.id, left.box, left.iou, left.split) == ("refcoco/val/1", (64, 48, 320, 240), 1.0, "refcoco/val")
    assert (left.image, left.size, left.text) == (IMAGE, (640, 480), TEXT)
    assert (half.iou, half.box, half.text) == (0.5, (0, 0, 32, 24), "")


def test_no_box_is_a_failure_in_the_denominator(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        {"id": "1", "box": None, "truth": [0, 0, 9, 9]},
        {"id": "2", "text": TEXT[:20], "finish_reason": "length", "truth": [0, 0, 9, 9], "width": 10, "height": 10},
    )
    assert [record.failure for record in read_records(path, reading=QWEN3)] == ["no_box", "truncated"]


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [5, 5, 1, 1], [0.0, 3, 9, 3]])
def test_a_box_of_no_area_is_a_miss(tmp_path: Path, box: list[float]) -> None:
    [record] = read_records(write(tmp_path / "p.jsonl", {"id": "1", "box": box, "truth": [0, 0, 9, 9]}))
    assert (record.failure, record.box, record.iou) == ("degenerate", None, 0.0)


def test_a_row_about_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    row = {"id": "refcoco/val/1", "box": [32, 24, 160, 120]}
    path = write(tmp_path / "p.jsonl", {**row, "width": 320, "height": 240})
    with pytest.raises(DataError, match=r"says its picture is \(320, 240\), and the dataset says \(640, 480\)"):
        read_records(path, samples=SAMPLES, partial=True)
    path = write(tmp_path / "p.jsonl", {**row, "width": 640.0, "height": 480.0})
    assert read_records(path, samples=SAMPLES, partial=True)[0].iou > 0


def test_the_first_row_answers_the_first_of_equal_questions(tmp_path: Path) -> None:
    rows = [{"image": IMAGE, "phrase": "left bowl", "box": box} for box in ([64, 48, 320, 240], [0, 0, 32, 48])]
    path = write(tmp_path / "p.jsonl", *rows)
    records = read_records(path, samples=SAMPLES, partial=True)
    assert [(record.id, record.iou) for record in records] == [("refcoco/val/1", 1.0), ("refcoco/val/3", 1.0)]
    # A truth tells them apart, in any order.
    turned = [{**row, "truth": row["box"]} for row in reversed(rows)]
    records = read_records(write(tmp_path / "q.jsonl", *turned), samples=SAMPLES, partial=True)
    assert [record.id for record in records] == ["refcoco/val/3", "refcoco/val/1"]


def test_a_json_list_and_gzip(tmp_path: Path) -> None:
    path = tmp_path / "p.json.gz"
    path.write_bytes(gzip.compress(json.dumps([{"id": "refcoco/val/1", "text": TEXT}]).encode()))
    assert read_records(path, samples=SAMPLES, reading=QWEN3, partial=True)[0].iou == 1.0


def test_vlm_r1_with_and_without_the_dataset(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text(
        json.dumps({"accuracy": 1.0, "results": [vlm_r1(), vlm_r1("no", "right bowl", (320, 48, 640, 240))]})
    )
    first, second = read_records(path, samples=SAMPLES, reading=ORIGINAL, partial=True)
    assert (first.id, first.iou, second.id, second.iou) == ("refcoco/val/1", 1.0, "refcoco/val/2", 0.0)
    first, second = read_records(path, reading=ORIGINAL)
    assert (first.phrase, first.iou, first.image, first.size) == ("left bowl", 1.0, "", None)
    assert first.id != second.id


def test_equal_questions_without_a_dataset_keep_their_own_ids(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"results": [vlm_r1(), vlm_r1()]}))
    ids = [record.id for record in read_records(path, reading=ORIGINAL)]
    assert ids[1] == f"{ids[0]}|2"


def test_the_pixel_convention_is_declared(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"results": [vlm_r1()]}))
    seen = read_records(path, samples=SAMPLES, reading=SEEN, partial=True)[0]
    # 640 x 480 is seen as 644 x 476.
    assert seen.box == pytest.approx((64 * 640 / 644, 48 * 480 / 476, 320 * 640 / 644, 240 * 480 / 476))
    with pytest.raises(DataError, match=r"size of its picture is not known: give a dataset that says it \(--data\)"):
        read_records(path, reading=SEEN)
    with pytest.raises(DataError, match=r"say how to read it with --codec \(egm codecs lists them"):
        read_records(path)


def test_lmms_eval(tmp_path: Path) -> None:
    doc = {
        "question_id": "9",
        "answer": "right bowl",
        "file_name": "COCO_train2014_000000580957_7.jpg",
        "bbox": [0] * 4,
    }
    row = {"doc_id": 0, "doc": doc, "resps": [["ignored"]], "filtered_resps": ["[500, 100, 1000, 500]"]}
    bare = {"doc_id": 1, "doc": {**doc, "answer": "left bowl"}, "resps": [[TEXT]]}
    first, second = read_records(write(tmp_path / "s.jsonl", row, bare), samples=SAMPLES, reading=QWEN3, partial=True)
    assert (first.id, first.iou, second.id, second.iou) == ("refcoco/val/2", 1.0, "refcoco/val/1", 1.0)
    unexploded = {**row, "doc": {**doc, "answer": ["left bowl", "bowl"]}}
    with pytest.raises(DataError, match=r"line 1: doc\.answer must be the phrase"):
        read_predictions(write(tmp_path / "s.jsonl", unexploded))


def test_the_official_output_as_rows_and_as_a_folder(tmp_path: Path) -> None:
    from datasets import Dataset

    row = {
        "image": f"train2014/{IMAGE}",
        "sent": "left bowl",
        "bbox": [64.0, 48.0, 320.0, 240.0],
        "height": 480,
        "width": 640,
        "generated_result": TEXT,
        "scaled_bbox": [1.0, 1.0, 2.0, 2.0],
        "iou": 0.0,
    }
    Dataset.from_list([row, {**row, "generated_result": None}]).save_to_disk(str(tmp_path / "out"))
    for path in (write(tmp_path / "p.jsonl", row, {**row, "generated_result": None}), tmp_path / "out"):
        good, empty = read_records(path, reading=QWEN3)
        assert (good.iou, good.image, good.size, good.phrase) == (1.0, f"train2014/{IMAGE}", (640, 480), "left bowl")
        assert (empty.iou, empty.failure) == (0.0, "no_box")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "nobody", "text": TEXT}], "line 1: the dataset has no sample with id"),
        ([{"image": IMAGE, "phrase": "cat", "text": TEXT}], "no sample with image and phrase"),
        ([{"id": "refcoco/val/1", "text": TEXT}] * 2, "line 2 answers what .* line 1 answers"),
        ([{"text": TEXT}], "no id and no phrase"),
        ([{"phrase": "left bowl", "text": TEXT}], "neither image nor true box"),
        ([{"id": "refcoco/val/1", "box": [0, 0, 9, 9], "truth": [0, 0, 9, 9]}], "not that of 'refcoco/val/1'"),
        ([{"id": "refcoco/val/1", "text": TEXT}], "answers 1 of 3 samples: --allow-partial"),
        ([{"id": "refcoco/val/1"}], "neither text nor box"),
        ([{"id": "refcoco/val/1", "text": 5}], "must be text, not int"),
        ([{"id": "refcoco/val/1", "box": [5, 5]}], r"box \[5, 5\] is not x1, y1, x2, y2"),
        ([{"id": "refcoco/val/1", "box": [5, 5, 9, float("nan")]}], "is not x1, y1, x2, y2"),
        ([{"id": "refcoco/val/1", "box": [5, 5, 9, 9], "truth": [5, 5, 1, 1]}], "truth .* is not x1, y1, x2, y2"),
        ([{"id": "refcoco/val/1", "text": TEXT, "width": 0, "height": 5}], "whole numbers of pixels"),
        ([["text"]], "row 1 must be an object"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_records(write(tmp_path / "p.jsonl", *rows), samples=SAMPLES, reading=QWEN3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no predictions"),
        (b"{}\nnot json\n", "line 1 has neither|line 2 is not JSON"),
        (b"5", "neither a list of rows nor rows line by line"),
        (b"\xff\xfe", "line 1 is not JSON"),
        (b"\x1f\x8bbroken", "cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_records(tmp_path / "p.jsonl")


def test_what_is_not_there_and_what_carries_no_truth(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no predictions at"):
        read_records(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match="without a journal or a saved dataset"):
        read_records(tmp_path)
    with pytest.raises(DataError, match="carries no true box: name the dataset"):
        read_records(write(tmp_path / "p.jsonl", {"id": "1", "box": [0, 0, 1, 1]}))
    twice = {"id": "1", "box": [0, 0, 1, 1], "truth": [0, 0, 1, 1]}
    with pytest.raises(DataError, match="answers '1' again"):
        read_records(write(tmp_path / "p.jsonl", twice, twice))
    blind = [("x", Sample("refcoco/val/1", Path(IMAGE), "left bowl"))]
    with pytest.raises(DataError, match=r"x: sample .refcoco/val/1. has no true box to score against, and .* line 1"):
        read_records(write(tmp_path / "p.jsonl", {"id": "refcoco/val/1", "box": [0, 0, 1, 1]}), samples=blind)


def test_a_journal_is_taken_as_it_is_by_file_or_folder(tmp_path: Path) -> None:
    record = Record(id="1", image="a.jpg", phrase="cup", truth=(0, 0, 9, 9), box=(0, 0, 9, 9), iou=1.0, split="x/val")
    header = Header(
        model="m", codec={"name": "qwen3_vl"}, prompt={"style": "qwen3"}, settings={}, datasets={"x/val": {"n": 1}}
    )
    with Journal(tmp_path / "run", header) as journal:
        journal.append(record)
    for path in (tmp_path / "run", tmp_path / "run" / "journal.jsonl"):
        assert read_records(path) == [record]


def test_a_journal_that_has_not_ended_or_of_other_samples_is_refused(tmp_path: Path) -> None:
    said = {"datasets": {"refcoco/val": {"n": 3, "digest": "x"}}}
    header = Header(model="m", codec={"name": "qwen3_vl"}, prompt={"style": "qwen3"}, settings={}, **said)
    facts = {"image": IMAGE, "truth": (64, 48, 320, 240), "split": "refcoco/val"}
    with Journal(tmp_path, header) as journal:
        journal.append(Record(id="refcoco/val/1", phrase="left bowl", **facts))
    for samples in (None, SAMPLES):
        with pytest.raises(DataError, match="answers 1 of 3 samples: --allow-partial"):
            read_records(tmp_path, samples=samples)
        assert len(read_records(tmp_path, samples=samples, partial=True)) == 1
    others = [("refcoco/testA", SAMPLES[0][1]), ("refcoco/val", replace(SAMPLES[0][1], phrase="cup"))]
    for other in others:
        with pytest.raises(DataError, match="about other samples than --data, such as 'refcoco/val/1' of refcoco/val"):
            read_records(tmp_path, samples=[other], partial=True)


def test_neighbours_are_the_objects_of_a_picture_each_once() -> None:
    again = ("refcoco/val", Sample("refcoco/val/4", Path(IMAGE), "bowl", SAMPLES[0][1].box))
    assert [other.box for other in neighbours_in([*SAMPLES, again])[IMAGE]] == [s.box for _, s in SAMPLES]


@pytest.mark.parametrize(
    ("answers", "reading", "iou"),
    [
        ({"text": TEXT, "box": None}, QWEN3, 1.0),
        ({"text": TEXT, "box": [0, 0, 9, 9]}, QWEN3, 1.0),
        ({"text": TEXT, "box": None}, None, 0.0),
        ({"text": TEXT, "box": [64, 48, 320, 240]}, None, 1.0),
        ({"text": " ", "box": [64, 48, 320, 240]}, QWEN3, 1.0),
        ({"text": None, "box": [64, 48, 320, 240]}, QWEN3, 1.0),
    ],
)
def test_of_text_and_box_the_text_is_read_where_a_codec_is_declared(
    tmp_path: Path, answers: dict[str, Any], reading: Reading | None, iou: float
) -> None:
    path = write(tmp_path / "p.jsonl", {"id": "refcoco/val/1", **answers})
    assert [record.iou for record in read_records(path, samples=SAMPLES, reading=reading, partial=True)] == [iou]


@pytest.mark.parametrize("several", [["[]", TEXT], [["[]", TEXT]], [["[]"], [TEXT]], [[], None, TEXT]])
def test_one_answer_a_row(tmp_path: Path, several: Any) -> None:
    doc = {"answer": "left bowl", "file_name": IMAGE}
    for row in (
        {"doc": doc, "filtered_resps": several},
        {"id": "refcoco/val/1", "text": several},
        {"image": IMAGE, "sent": "left bowl", "generated_result": several},
    ):
        with pytest.raises(DataError, match=r"line 1 holds \d answers that differ: keep one a sample"):
            read_predictions(write(tmp_path / "p.jsonl", row))
    [alike] = read_predictions(write(tmp_path / "p.jsonl", {"doc": doc, "filtered_resps": [[TEXT, TEXT]]}))
    assert alike.text == TEXT


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"box": Box(64, 48, 320, 250)}, "another true box"),
        ({"phrase": "Left bowl"}, "another phrase"),
        ({"image": Path("COCO_train2014_000000000001.jpg")}, "another picture"),
        ({"size": (320, 240)}, "another size"),
        ({"amodal": True}, "the whole object asked for"),
    ],
)
def test_a_journal_of_other_questions_than_the_dataset_is_refused(
    tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    said = {"datasets": {"refcoco/val": {"n": 1, "digest": "x"}}}
    header = Header(model="m", codec={"name": "qwen3_vl"}, prompt={"style": "qwen3"}, settings={}, **said)
    facts = {"image": IMAGE, "truth": (64, 48, 320, 240), "split": "refcoco/val", "size": (640, 480)}
    with Journal(tmp_path, header) as journal:
        journal.append(Record(id="refcoco/val/1", phrase="left bowl", **facts))
    assert len(read_records(tmp_path, samples=SAMPLES[:1])) == 1
    with pytest.raises(DataError, match=f"about other samples than --data.*{what}"):
        read_records(tmp_path, samples=[("refcoco/val", replace(SAMPLES[0][1], **change))])
