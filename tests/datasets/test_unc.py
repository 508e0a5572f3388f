"""The UNC release: pickles of plain values are read, and nothing in them can run."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from egm.boxes import Box
from egm.datasets import open_dataset
from egm.errors import DataError


def reference(number: int, split: str) -> dict[str, Any]:
    sentences = [{"sent_id": k, "sent": f"thing {number} {k}", "raw": "Thing!", "tokens": ["thing"]} for k in range(2)]
    return {
        "ref_id": number,
        "ann_id": 7,
        "category_id": 1,
        "image_id": 5,
        "file_name": f"COCO_train2014_000000000005_{number}.jpg",
        "split": split,
        "sent_ids": [0, 1],
        "sentences": sentences,
    }


INSTANCES = {
    "images": [{"id": 5, "file_name": "COCO_train2014_000000000005.jpg", "height": 50, "width": 60}],
    "categories": [{"id": 1, "name": "cup"}],
    "annotations": [{"id": 7, "image_id": 5, "bbox": [1.5, 2, 30, 40], "segmentation": []}],
}


def release(folder: Path, refs: Any, by: str = "unc") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"refs({by}).p").write_bytes(refs if isinstance(refs, bytes) else pickle.dumps(refs, protocol=0))
    (folder / "instances.json").write_text(json.dumps(INSTANCES))
    return folder


def test_folder_file_and_zip_give_the_same_samples(tmp_path: Path) -> None:
    folder = release(tmp_path / "refcoco", [reference(1, "train"), reference(2, "val")])
    with zipfile.ZipFile(tmp_path / "refcoco.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"refcoco/{file.name}")
    from_folder = list(open_dataset(folder))
    assert [sample.phrase for sample in from_folder] == ["thing 1 0", "thing 1 1", "thing 2 0", "thing 2 1"]
    assert len({sample.id for sample in from_folder}) == 4
    last = from_folder[-1]
    assert (last.box, last.size) == (Box(1.5, 2, 31.5, 42), (60, 50))
    assert last.image == Path("COCO_train2014_000000000005.jpg")
    assert last.meta == {"image_id": 5, "ref": 2, "split": "val", "category": "cup"}
    for other in (tmp_path / "refcoco.zip", folder / "refs(unc).p"):
        assert [(s.phrase, s.box, s.meta) for s in open_dataset(other)] == [
            (s.phrase, s.box, s.meta) for s in from_folder
        ]


def test_a_category_without_a_name_goes_by_its_number(tmp_path: Path) -> None:
    known, unknown = reference(1, "val") | {"category_id": 9}, reference(2, "val")
    del unknown["category_id"]
    data = open_dataset(release(tmp_path / "refcoco", [known, unknown]))
    assert [sample.meta.get("category") for sample in data] == [9, 9, None, None]


def test_a_named_split_takes_its_own_rows_and_its_own_split_maker(tmp_path: Path) -> None:
    folder = release(tmp_path / "refcoco", [reference(1, "train"), reference(2, "val")])
    release(folder, [reference(9, "val")], by="google")
    found = open_dataset("refcoco/val", data=tmp_path, allow_partial=True)
    assert [sample.phrase for sample in found] == ["thing 2 0", "thing 2 1"]
    with pytest.raises(DataError, match=r"several splits \(refs\(google\)\.p, refs\(unc\)\.p\)"):
        open_dataset(folder)


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_names_anything_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "ran"
    folder = release(tmp_path / "refcoco", pickle.dumps([Evil(target)], protocol=protocol))
    with pytest.raises(DataError, match="was not run: it names"):
        open_dataset(folder)
    assert not target.exists()


@pytest.mark.parametrize(
    "content", [b"cos\nsystem\n(S'true'\ntR.", b"(S'true'\nios\nsystem\n.", b"Pname\n.", b"", b"\x80"]
)
def test_hand_written_and_damaged_pickles_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="was not run"):
        open_dataset(release(tmp_path / "refcoco", content))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ann_id": 8}, "instances.json lacks"),
        ({"image_id": 8}, "instances.json lacks"),
        ({"sentences": [{"raw": "x"}]}, "has no sent"),
        ({"sentences": "x"}, "must be a list"),
    ],
)
def test_a_bad_reference_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        open_dataset(release(tmp_path / "set", [reference(1, "val"), reference(2, "val") | change]))
    assert "refs(unc).p row 2" in str(caught.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = release(tmp_path / "set", [reference(1, "val")])
    (folder / "instances.json").unlink()
    with pytest.raises(DataError, match=r"instances\.json is missing"):
        open_dataset(folder)
    (folder / "refs(unc).p").unlink()
    with pytest.raises(DataError, match=r"has no refs\(\*\)\.p"):
        open_dataset(folder)
