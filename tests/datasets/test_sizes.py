"""Sizes of pictures inside files, whose rows say none."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from egm.codecs import get_codec
from egm.datasets import open_dataset, with_sizes
from egm.errors import ImageError
from egm.report import read_records
from egm.report.predictions import Reading


def write(path: Path, *contents: bytes) -> Path:
    rows = [
        {
            "question_id": str(number),
            "answer": [f"left {number}", f"right {number}"],
            "bbox": [0.0, 0.0, 100.0, 100.0],
            "file_name": f"COCO_train2014_{number:012d}_{number}.jpg",
            "image": {"bytes": content},
        }
        for number, content in enumerate(contents)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "PNG")
    return stream.getvalue()


def test_sizes_are_those_of_the_pictures(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path / "val.parquet", png(200, 100), png(120, 140)))
    assert {sample.size for sample in dataset.annotations()} == {None}
    sized = list(with_sizes(dataset))
    assert [sample.size for sample in sized] == [(200, 100), (200, 100), (120, 140), (120, 140)]
    assert [sample.id for sample in sized] == [sample.id for sample in dataset.annotations()]


def test_with_them_texts_on_a_relative_scale_can_be_scored(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path / "val.parquet", png(200, 100)))
    samples = [(dataset.name, sample) for sample in with_sizes(dataset)]
    answers = [{"id": sample.id, "text": '</think>{"bbox_2d": [0, 0, 500, 1000]}'} for _, sample in samples]
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(answers))
    records = read_records(path, samples=samples, reading=Reading(get_codec("qwen3_vl")))
    assert [(record.iou, record.size) for record in records] == [(1.0, (200, 100))] * 2


def test_pictures_on_disk_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "gone.png", "sent": "x", "bbox": [1, 2, 3, 4]}))
    [sample] = with_sizes(open_dataset(tmp_path / "rows.jsonl"))
    assert sample.size is None


def test_a_damaged_picture_is_an_error(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path / "val.parquet", b"no picture"))
    with pytest.raises(ImageError):
        list(with_sizes(dataset))
