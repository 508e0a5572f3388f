"""Line-by-line JSON: good rows become Samples, bad ones are named by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from egm.boxes import Box
from egm.datasets.jsonl import JsonlDataset
from egm.errors import DataError

ROW = {"image": "a.png", "sent": "the cup", "bbox": [1, 2, 30, 40], "height": 50, "width": 60}


def dataset(tmp_path: Path, *lines: str) -> JsonlDataset:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return JsonlDataset(path)


def test_a_row_becomes_a_sample(tmp_path: Path) -> None:
    more = {"id": 7, "amodal": True, "rationale": "It is there.", "kind": "plain"}
    first, second = dataset(tmp_path, json.dumps(ROW), "", json.dumps(ROW | more))
    assert (first.phrase, first.box, first.size) == ("the cup", Box(1, 2, 30, 40), (60, 50))
    assert first.image == (tmp_path / "a.png").resolve()
    assert (first.id, first.amodal, first.rationale) == ("rows/1", False, None)
    assert (second.id, second.amodal, second.rationale, second.meta) == ("7", True, "It is there.", {"kind": "plain"})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "is not JSON"),
        ("[1]", "must be an object"),
        (json.dumps({"image": "a.png"}), "has no sent"),
        (json.dumps(ROW | {"sent": " "}), "has no sent"),
        (json.dumps(ROW | {"bbox": [1, 2, 3]}), "is not x1, y1, x2, y2"),
        (json.dumps(ROW | {"bbox": [30, 2, 1, 40]}), "is not x1, y1, x2, y2"),
        (json.dumps(ROW | {"bbox": "1,2,3,4"}), "is not x1, y1, x2, y2"),
        (json.dumps(ROW | {"width": 0}), "are not whole numbers"),
        (json.dumps(ROW | {"image": "../../etc/passwd"}), "lies outside"),
        (json.dumps(ROW | {"image": "/etc/passwd"}), "lies outside"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        dataset(tmp_path, json.dumps(ROW), line)
    assert "rows.jsonl line 2" in str(caught.value)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "inside" / "a.png").symlink_to(tmp_path / "secret.png")
    path = tmp_path / "inside" / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="lies outside"):
        JsonlDataset(path)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no dataset at"):
        JsonlDataset(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="holds no rows"):
        dataset(tmp_path)
