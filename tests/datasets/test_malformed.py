"""Malformed rows, put aside: every one is told, and the others are read as if it were not there."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egm.datasets import Malformed, check_dataset, open_dataset
from egm.errors import DataError

ROW = {"image": "a.png", "sent": "the cup", "bbox": [1, 2, 30, 40], "height": 50, "width": 60}
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 50}],
    "annotations": [
        "text",
        {"image_id": 1, "bbox": [1, 2, 3, 4]},
        {"image_id": 1, "bbox": [1, 2, 3, 4], "caption": "one"},
        {"image_id": 2, "bbox": [1, 2, 3, 4], "caption": "two"},
        {"image_id": 1, "bbox": [1, 2, 3, 0], "caption": "three"},
        {"image_id": 1, "bbox": [1, 2, 3, 4], "caption": "four"},
    ],
}


def read(path: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Ids of the samples, and the place and fault of what is none; without a list for them, the first is an error."""
    malformed: list[Malformed] = []
    dataset = open_dataset(path, malformed=malformed)
    with pytest.raises(DataError) as caught:
        open_dataset(path)
    assert f"{malformed[0].file} {malformed[0].where}: " in str(caught.value) or "no known format" in str(caught.value)
    found = check_dataset(dataset, malformed=malformed, images=False, repeats=False)
    assert [finding.sample for finding in found] == [f"{row.file.name} {row.where}" for row in malformed]
    assert {finding.kind for finding in found} == {"malformed"}
    return [sample.id for sample in dataset], [(row.where, row.what) for row in malformed]


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"image": "a.png"}, ROW, ROW | {"bbox": [1, 2, 0, 4]}, ROW]
    short, sound, bad, last = (json.dumps(row).encode() for row in rows)
    half = json.dumps(ROW | {"sent": "the cup \ud83d"}).encode()  # such as of an emoji that was cut in two
    whole = json.dumps(ROW | {"sent": "the cup \N{HOT BEVERAGE}\N{SMILING FACE WITH SUNGLASSES}"}).encode()
    path.write_bytes(b"\n".join([b"{", b"", short, sound, b"[1]", b'"\xff"', bad, last, half, whole]))
    ids, malformed = read(path)
    assert ids == ["rows/3", "rows/7", "rows/9"]  # numbered as where nothing is left out
    assert [where for where, _ in malformed] == [f"line {number}" for number in (1, 3, 5, 6, 7, 9)]
    told = ("not JSON", "no sent", "an object", "not UTF-8", "bbox", "holds half a character ('\\ud83d')")
    for (_, what), says in zip(malformed, told, strict=True):
        assert says in what


def test_rows_of_json_and_ids_that_are_there_already(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [5, ROW | {"id": "a"}, ROW | {"id": "b", "bbox": 3}, ROW | {"id": "a"}, ROW | {"id": "b"}]
    rows.append(ROW | {"id": "c\udfff"})
    path.write_text(json.dumps(rows), encoding="utf-8")
    ids, malformed = read(path)
    assert ids == ["a", "b"]
    assert [where for where, _ in malformed] == ["row 1", "row 3", "row 4", "row 6"]
    assert malformed[2][1] == "has the id 'a' of an earlier row: give each row its own"


def test_annotations_of_coco(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(COCO), encoding="utf-8")
    ids, malformed = read(path)
    assert ids == ["coco/3", "coco/6"]
    assert [where for where, _ in malformed] == [f"annotation {number}" for number in (1, 2, 4, 5)]


def test_parquet_keeps_to_each_row_its_picture(tmp_path: Path) -> None:
    rows = [
        {"question_id": str(n), "answer": answer, "bbox": [1.0, 2.0, 3.0, 4.0], "image": {"bytes": picture}}
        for n, (answer, picture) in enumerate(((["x"], b"0"), ([], b"1"), (["y", "z"], b"2"), ([" "], b"3")))
    ]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    ids, malformed = read(path)
    assert ids == ["rows/1/1", "rows/3/1", "rows/3/2"]
    assert [where for where, _ in malformed] == ["row 2", "row 4"]
    assert [sample.image for sample in open_dataset(path, malformed=[])] == [b"0", b"2", b"2"]


def test_a_row_without_its_picture_is_a_finding(tmp_path: Path) -> None:
    rows = [
        {"question_id": str(n), "answer": ["x"], "bbox": [1.0, 2.0, 3.0, 4.0], "image": {"bytes": picture}}
        for n, picture in enumerate((None, b"no picture"))
    ]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    found = check_dataset(open_dataset(path), repeats=False)
    assert [finding.kind for finding in found] == ["missing image", "unreadable image"]


def test_references_of_unc(tmp_path: Path) -> None:
    sentences = [{"sent": "the cup"}]
    references = [
        7,
        {"ref_id": 1, "image_id": 1, "ann_id": 1, "split": "val", "sentences": sentences},
        {"ref_id": 2, "image_id": 1, "ann_id": 9, "split": "val", "sentences": sentences},
        {"ref_id": 3, "image_id": 1, "ann_id": 1, "split": "val", "sentences": sentences},
    ]
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(references))
    annotations = [{"id": 1, "bbox": [1, 2, 3, 4]}]
    (tmp_path / "instances.json").write_text(json.dumps(COCO | {"annotations": annotations}), encoding="utf-8")
    ids, malformed = read(tmp_path)
    assert len(ids) == 2
    assert [where for where, _ in malformed] == ["row 1", "row 3"]


def test_what_cannot_be_read_on_stays_an_error(tmp_path: Path) -> None:
    contents = {
        "a.json": b'[{"image": "a.png"',
        "b.json": b'[{"file": "a.png"}, {"file": "b.png"}]',
        "c.jsonl": b'{\n{"file": "a.png"}\n',
        "d.zip": b"no",
        "e.parquet": b"no",
        "f.json": b'{"images": [], "annotations": [{"bbox": [1, 2, 3, 4]}]}',
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        malformed: list[Malformed] = []
        with pytest.raises(DataError) as caught:
            open_dataset(tmp_path / name, malformed=malformed)
        assert name in str(caught.value)
        assert malformed == []
