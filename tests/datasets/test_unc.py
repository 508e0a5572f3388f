"""The UNC release: pickles of plain values are read, and nothing in them can run."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from egm.boxes import Box
from egm.datasets import open_dataset
from egm.datasets.plain_pickle import load_plain_pickle
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
    assert [s.phrase for s in open_dataset(folder, images=str(tmp_path))] == [s.phrase for s in from_folder]
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
    with pytest.raises(DataError, match="was not run: it holds"):
        open_dataset(folder)
    assert not target.exists()


def test_pickles_of_every_protocol_are_read(tmp_path: Path) -> None:
    rows = [reference(1, "val") | {"score": -1.5, "n": 10**6, "word": "Bär", "no": None, "yes": True, "id": 2**40}]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert load_plain_pickle(pickle.dumps(rows, protocol=protocol), "refs") == rows


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"}" + b")" + b"\x85" * 3_000_000 + b"Ns.", "EMPTY_TUPLE"),  # its hash recurses until the process dies
        (b"](K\x01\x91a.", "FROZENSET"),
        (b"]\x8fa.", "EMPTY_SET"),
        (b"]2a.", "DUP"),
        (b"]" * 3_000_001 + b".", "more values than RefCOCO has"),
        (b"]r\xff\xff\xff\x7f.", "a number that is too large"),
        (b"]p9999999999\n.", "a number that is too large"),
        (b"T\xff\xff\xff\x7fabc.", "cut off"),
        (b"I" + b"9" * 10_000 + b"\n.", "could not convert string to int"),
        (b"]" * 100_000 + b"a" * 99_999 + b".", "must hold a list of references|is not a dict"),
    ],
)
def test_hostile_pickles_are_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        open_dataset(release(tmp_path / "refcoco", content))
    assert len(str(caught.value)) < 400


def test_lists_that_hold_each_other_are_no_facts_of_a_sample(tmp_path: Path) -> None:
    tangled: list[Any] = []
    for _ in range(60):
        tangled = [tangled, tangled]
    [sample, _] = open_dataset(release(tmp_path / "set", [reference(1, "val") | {"split": tangled, "ref_id": tangled}]))
    assert sample.meta["split"] is None


def zipped(path: Path, change: Callable[[bytearray, int, int], None] | None = None, **options: Any) -> Path:
    """A release as a zip, whose bytes are changed at both headers of its references."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("refs(unc).p", pickle.dumps([reference(1, "val")] * 50, protocol=0))
        archive.writestr("instances.json", json.dumps(INSTANCES))
    content = bytearray(path.read_bytes())
    if change is not None:
        change(content, 0, content.index(b"PK\x01\x02"))
    path.write_bytes(content)
    return path


def encrypted(content: bytearray, local: int, central: int) -> None:
    content[local + 6] |= 1
    content[central + 8] |= 1


def packed_otherwise(content: bytearray, local: int, central: int) -> None:
    content[local + 8] = content[central + 10] = 97


def damaged(content: bytearray, local: int, central: int) -> None:
    content[local + 60 : local + 80] = b"\xff" * 20


def huge(content: bytearray, local: int, central: int) -> None:
    content[local + 22 : local + 26] = content[central + 24 : central + 28] = (1_900_000_000).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (encrypted, "is encrypted"),
        (packed_otherwise, "compression"),
        (damaged, "cannot be read"),
        (huge, r"unpacks refs\(unc\).p to more than 128 MB"),
    ],
)
def test_hostile_zips_are_one_line(tmp_path: Path, change: Any, says: str) -> None:
    zipped(tmp_path / "good.zip", compression=zipfile.ZIP_DEFLATED)
    path = zipped(tmp_path / "bad.zip", change, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=says):
        open_dataset(path)


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
        ({"ann_id": True}, "instances.json lacks"),
        ({"sentences": [{"sent": "cup \ud83d"}]}, "holds half a character"),
        ({"image_id": 8}, "instances.json lacks"),
        ({"sentences": [{"raw": "x"}]}, "has no sent"),
        ({"sentences": "x"}, "must be a list"),
    ],
)
def test_a_bad_reference_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        open_dataset(release(tmp_path / "set", [reference(1, "val"), reference(2, "val") | change]))
    assert "refs(unc).p row 2" in str(caught.value)


PICTURE, ANNOTATION = INSTANCES["images"][0], INSTANCES["annotations"][0]


@pytest.mark.parametrize(
    ("change", "more", "says"),
    [
        ({"ann_id": 8}, {"annotations": [ANNOTATION | {"id": 8, "image_id": 6}]}, "ann_id 8 is of image_id 6, not 5"),
        ({"file_name": "COCO_train2014_000000000006_1.jpg"}, {}, "is not of image_id 5"),
        ({}, {"annotations": [ANNOTATION | {"bbox": [9, 9, 9, 9]}]}, "ann_id 7 stands twice"),
        ({}, {"images": [PICTURE | {"file_name": "x.jpg"}]}, "image_id 5 stands twice"),
    ],
)
def test_a_reference_whose_parts_belong_to_two_pictures_is_refused(
    tmp_path: Path, change: dict[str, Any], more: dict[str, Any], says: str
) -> None:
    folder = release(tmp_path / "set", [reference(1, "val") | change])
    content = INSTANCES | {key: [*INSTANCES[key], *items] for key, items in more.items()}
    (folder / "instances.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=says):
        open_dataset(folder)


@pytest.mark.parametrize(
    "content", ["[]", '{"images": []}', '{"images": 1, "annotations": []}', '{"images": [[]]}', "{"]
)
def test_instances_that_are_no_coco_json_are_refused(tmp_path: Path, content: str) -> None:
    folder = release(tmp_path / "set", [reference(1, "val")])
    (folder / "instances.json").write_text(content)
    with pytest.raises(DataError, match=r"instances\.json beside .*refs\(unc\)\.p"):
        open_dataset(folder)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = release(tmp_path / "set", [reference(1, "val")])
    (folder / "instances.json").unlink()
    with pytest.raises(DataError, match=r"instances\.json is missing"):
        open_dataset(folder)
    (folder / "refs(unc).p").unlink()
    (folder / "train-00000.parquet").touch()
    with pytest.raises(DataError, match=r"is a folder of 1 parquet files: give one, such as .*train-00000\.parquet"):
        open_dataset(folder)
    (folder / "train-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"has no refs\(\*\)\.p"):
        open_dataset(folder)
