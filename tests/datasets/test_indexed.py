"""Files read by index: the same samples as when read whole, one at a time, from any process."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egm.datasets import open_dataset
from egm.datasets.indexed import IndexedDataset, open_indexed
from egm.errors import DataError, EgmError
from egm.types import Sample


def row(number: int, **changes: Any) -> dict[str, Any]:
    base = {"image": f"{number // 2}.jpg", "sent": f"cup {number} é", "bbox": [1, 2, 30, 40], "height": 50, "width": 60}
    return base | {"rationale": "It is there. " * 20} | changes


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in rows), encoding="utf-8")
    return path


def opened(path: Path, **options: Any) -> IndexedDataset:
    found = open_indexed(path, **options)
    assert found is not None
    return found


def test_a_jsonl_file_gives_what_reading_it_whole_gives(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(number) for number in range(20)])
    path.write_text(path.read_text().replace("\n", "\n  \n\n", 3).rstrip("\n"))  # blank lines, and no end of the last
    whole, indexed = open_dataset(path), opened(path)
    assert list(indexed) == list(whole)
    assert (indexed[-1], indexed[3:5]) == (whole[-1], [whole[3], whole[4]])
    assert pickle.loads(pickle.dumps(indexed))[7] == whole[7]
    assert [sample for _, sample in indexed.scan()] == list(whole)
    assert [where for where, _ in indexed.scan()][:3] == ["line 1", "line 4", "line 7"]
    with pytest.raises(IndexError):
        indexed[20]


def test_other_jsonl_formats_are_recognised(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nLocate a cup, output its bbox coordinates using JSON format."},
             {"from": "gpt", "value": "It is.\n</think>\n\n<box>[[100, 200, 300, 400]]</box>"}]  # fmt: skip
    path = write(tmp_path / "a.jsonl", [{"image": "a.jpg", "height": 50, "width": 60, "conversations": turns}])
    assert list(opened(path)) == list(open_dataset(path))


def test_a_row_that_turned_bad_is_named_when_it_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(0), row(1, bbox=[5, 5, 1, 1]), "text", row(3)])
    indexed = opened(path)
    with pytest.raises(DataError, match=r"a\.jsonl line 2: bbox \[5, 5, 1, 1\] is not"):
        indexed[1]
    with pytest.raises(DataError, match=r"a\.jsonl line 3: must be an object"):
        indexed[2]
    found = [item for _, item in indexed.scan()]
    assert [isinstance(item, EgmError) for item in found] == [False, True, True, False]
    with pytest.raises(DataError, match="holds no rows"):
        open_indexed(write(tmp_path / "b.jsonl", []))


def test_an_index_takes_eight_bytes_a_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(number) for number in range(20_000)])
    opened(path)  # what is imported on the way is not the index's
    tracemalloc.start()
    try:
        indexed = opened(path)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 8 * 20_000 * 1.3 + 20_000
    assert peak < path.stat().st_size / 10
    assert len(indexed) == 20_000


def lmms(number: int) -> dict[str, Any]:
    return {
        "question_id": str(number),
        "image": {"bytes": bytes([number]) * 100, "path": None},
        "answer": [f"cup {number}"] * (number % 3 + 1),
        "bbox": [1.0, 2.0, 30.0, 40.0],
        "file_name": f"COCO_train2014_{number:012d}_{number}.jpg",
    }


def test_parquet_gives_what_reading_it_whole_gives(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([lmms(n) for n in range(23)]), tmp_path / "a.parquet", row_group_size=5)
    whole, indexed = open_dataset(tmp_path / "a.parquet"), opened(tmp_path / "a.parquet")
    assert list(indexed) == list(whole)
    assert [indexed[i] for i in (40, 0, 17, 3)] == [whole[i] for i in (40, 0, 17, 3)]
    assert pickle.loads(pickle.dumps(indexed))[7] == whole[7]
    assert indexed.bounds is not None
    assert indexed.bounds.tolist() == [0, 9, 19, 30, 39, 45]
    assert not indexed.names_files
    scanned = [sample for _, sample in indexed.scan()]
    assert [s.phrase for s in scanned if isinstance(s, Sample)] == [s.phrase for s in whole]


def test_a_process_holds_few_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.Table.from_pylist([lmms(n) for n in range(60)]), tmp_path / "a.parquet", row_group_size=5)
    monkeypatch.setattr("egm.datasets.indexed.GROUP_BYTES", 1)
    assert opened(tmp_path / "a.parquet").window == 1
    monkeypatch.undo()
    indexed: Any = opened(tmp_path / "a.parquet")
    assert indexed.window == 12 or indexed.window == 16
    indexed.window = 3
    for index in range(len(indexed)):
        indexed[index]
    assert len(indexed._files[1]._tables) == 3


def test_formats_that_have_to_be_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    assert open_indexed(tmp_path / "a.json") is None
    assert open_indexed(write(tmp_path / "a.jsonl", [lmms(1) | {"image": "x"}])) is None
    with pytest.raises(DataError, match="no dataset at"):
        open_indexed(tmp_path / "none.jsonl")
