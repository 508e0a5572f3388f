"""Files from strangers, as datasets and as predictions: what is no file, or is over a bound, is one short line."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from egm.datasets import inputs, open_dataset
from egm.datasets.indexed import open_indexed
from egm.errors import DataError
from egm.report import prediction_files
from egm.report.prediction_files import read_predictions

ROW = {
    "id": "1",
    "image": "a.png",
    "sent": "the cup",
    "bbox": [1, 2, 30, 40],
    "box": [1, 2, 3, 4],
    "height": 50,
    "width": 60,
}
LINE = json.dumps(ROW).encode()


def readings(path: Path) -> list[str]:
    """What each reader says of a file: the dataset's, the one by index, and that of predictions."""
    says = []
    for read in (open_dataset, open_indexed, read_predictions):
        try:
            found = read(path)
            says.append(f"{len(found or [])} rows")
        except DataError as error:
            says.append(str(error))
    assert all("\n" not in line and len(line) < 400 for line in says)
    return says


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_byte_order_mark_is_passed_over(tmp_path: Path, name: str) -> None:
    content = LINE + b"\n" if name == "a.jsonl" else b"[" + LINE + b"]"
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content)
    assert {says for says in readings(tmp_path / name) if says != "0 rows"} == {"1 rows"}
    if name == "a.jsonl":
        indexed = open_indexed(tmp_path / name)
        assert indexed is not None
        assert [indexed[0]] == list(open_dataset(tmp_path / name)) == [sample for _, sample in indexed.scan()]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 100_000, "it nests too deep"),
        (b'{"a": ' * 100_000, "it nests too deep"),
        (LINE[:-1] + b', "x": ' + b"9" * 5000 + b"}", "an integer of thousands of digits"),
        (LINE[:-1] + b', "bbox": [5, 6, 7, 8], "box": [5, 6, 7, 8]}', "says 'bbox' twice in one object"),
        (b"\x80" + LINE, "is not UTF-8"),
        (LINE[:-1] + b', "width": 1' + b"0" * 400 + b"}", "says 'width' twice"),
        (LINE.replace(b"60", b"1" + b"0" * 400), "are not whole numbers of pixels"),
        (LINE.replace(b'"1"', b"[1]"), "id [1] is neither words nor a whole number"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_json_beyond_bounds_is_one_line(tmp_path: Path, content: bytes, says: str, name: str) -> None:
    (tmp_path / name).write_bytes(b"[" + content + b"]" if name == "a.json" else content + b"\n")
    whole, _, predictions = readings(tmp_path / name)
    assert says in whole
    assert says in predictions


@pytest.mark.parametrize(
    "numbers", ["[false, true, 2, 3]", "[1, 2, 3, 1e400]", '"abcd"', "[1, 2, 3, 1" + "0" * 400 + "]"]
)
def test_a_box_is_four_numbers(tmp_path: Path, numbers: str) -> None:
    line = LINE.replace(b"[1, 2, 30, 40]", numbers.encode()).replace(b"[1, 2, 3, 4]", numbers.encode())
    (tmp_path / "a.jsonl").write_bytes(line)
    whole, _, predictions = readings(tmp_path / "a.jsonl")
    assert "is not x1, y1, x2, y2 in pixels" in whole
    assert "is not x1, y1, x2, y2 in pixels" in predictions


def test_what_nests_beside_the_known_fields_is_bounded_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINE[:-1] + b', "more": ' + b"[" * 40 + b"]" * 40 + b"}")
    assert readings(tmp_path / "a.jsonl")[0].endswith("line 1: 'more' nests more than 32 deep")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet", "a.zip", "refs(unc).p"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    for says in readings(tmp_path / name):
        assert "is not a regular file" in says or says == "0 rows"


def test_sizes_have_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes((LINE + b"\n") * 3)
    (tmp_path / "a.json").write_bytes(b"[" + b",".join([LINE] * 3) + b"]")
    (tmp_path / "b.jsonl").write_bytes(gzip.compress((LINE + b"\n") * 3))
    monkeypatch.setattr(prediction_files, "MAX_ROWS", 2)
    assert "holds more than 2 rows: score it in parts" in readings(tmp_path / "a.jsonl")[2]
    monkeypatch.setattr(prediction_files, "MAX_ROWS", 3)
    assert readings(tmp_path / "b.jsonl")[2] == "3 rows"
    monkeypatch.setattr(inputs, "MAX_LINE", len(LINE))
    assert all("line 1 is longer than 0 MB: give each row" in says for says in readings(tmp_path / "a.jsonl"))
    monkeypatch.setattr(inputs, "MAX_UNPACKED", 2 * len(LINE))
    assert "holds more than 0 MB: split it" in readings(tmp_path / "b.jsonl")[2]
    monkeypatch.setattr(inputs, "MAX_MEMORY", 1000)
    assert "a.json would take more than 0 MB of memory" in readings(tmp_path / "a.json")[0]
    monkeypatch.setattr(inputs, "MAX_BYTES", 2 * len(LINE))
    assert "a.json holds more than 0 MB" in readings(tmp_path / "a.json")[0]
