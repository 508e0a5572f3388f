"""The UNC release of RefCOCO, RefCOCO+ and RefCOCOg: `refs(unc).p` or `refs(umd).p` beside `instances.json`.

The references are a Python 2 pickle of lists, dicts, strings and numbers. One that holds anything else is refused
before anything of it runs, see `plain_pickle`. Source: lichengunc/refer.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from egm.datasets.coco_names import coco_number
from egm.datasets.fields import TWICE, Row, by_id, pixels, short, text, xywh
from egm.datasets.image_root import ImageRoot
from egm.datasets.inputs import MAX_BYTES, JsonError, load_json, open_regular, read_whole
from egm.datasets.plain_pickle import load_plain_pickle
from egm.datasets.read_rows import Malformed, read_rows
from egm.errors import DataError
from egm.types import Sample

MAX_REFS = 128 * 2**20
"""Largest file of references, unpacked; RefCOCO's takes some 40 MB."""


# Damaged, encrypted (RuntimeError), or packed by what is not here (NotImplementedError).
_BROKEN_ZIP = (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, ValueError)


def read_unc(
    path: Path,
    *,
    name: str,
    images: ImageRoot,
    by: str | None = None,
    split: str | None = None,
    malformed: list[Malformed] | None = None,
) -> list[Sample]:
    """Read the UNC release.

    Args:
        path: A folder with the two files, its zip, or `refs(*).p` itself.
        name: Name of the dataset.
        images: Where images are.
        by: Who split it, as in the file's name: `unc`, `umd`, `google`. May be left out where there is one file only.
        split: Only this split, such as `testA`; all of them if left out.
        malformed: See `read_rows`.

    Raises:
        DataError: If a file is missing or wrong; the message names the row.
    """
    refs, instances, file = _open(path, by)
    rows = load_plain_pickle(refs, str(file))
    if not isinstance(rows, list):
        raise DataError(f"{file} must hold a list of references")
    try:
        content = load_json(instances)
        pictures = by_id(content["images"], "file_name", "width", "height")
        boxes = by_id(content["annotations"], "bbox", "image_id")
        kinds = by_id(content.get("categories", []), "name")
    except JsonError as error:
        raise DataError(f"instances.json beside {file} {error}") from None
    except (TypeError, KeyError, AttributeError):
        raise DataError(f"instances.json beside {file} is not COCO JSON with images and annotations") from None

    def rows_joined() -> Iterator[tuple[str, Row | DataError]]:
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                yield f"row {number}", DataError("is not a dict")
            elif split is None or row.get("split") == split:
                number_of_kind = _key(row, "category_id")
                kind = kinds.get(number_of_kind)
                joined = {
                    "_image": pictures.get(_key(row, "image_id")),
                    "_annotation": boxes.get(_key(row, "ann_id")),
                    "_kind": kind["name"] if isinstance(kind, dict) else number_of_kind,
                }
                yield f"row {number}", {**row, **joined}

    return read_rows(rows_joined(), _samples, name=name, file=file, images=images, malformed=malformed)


def _key(row: Row, key: str) -> int | None:
    value = row.get(key)
    return value if type(value) is int else None


def _word(row: Row, key: str) -> int | str | None:
    """A fact of a row; lists that hold each other, as a pickle may, would never be written to their end."""
    value = row.get(key)
    return value if isinstance(value, int | str) else None


def _samples(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    picture, annotation, sentences = row["_image"], row["_annotation"], row.get("sentences")
    if picture is None or annotation is None:
        raise DataError("has an image_id or ann_id that instances.json lacks")
    for key, found in (("image_id", picture), ("ann_id", annotation)):
        if found is TWICE:
            raise DataError(f"{key} {row[key]} stands twice in instances.json, and not for the same")
    if annotation.get("image_id", row["image_id"]) != row["image_id"]:
        raise DataError(f"ann_id {row['ann_id']} is of image_id {short(annotation['image_id'])}, not {row['image_id']}")
    numbers = [coco_number(str(item.get("file_name"))) for item in (row, picture)]
    if None not in numbers and numbers[0] != numbers[1]:
        raise DataError(f"file_name {short(row['file_name'])} is not of image_id {row['image_id']}")
    if not isinstance(sentences, list) or not all(isinstance(item, dict) for item in sentences):
        raise DataError("sentences must be a list of dicts with sent")
    image, size, box = images(text(picture, "file_name")), pixels(picture), xywh(annotation["bbox"])
    meta = {"image_id": row["image_id"], "ref": _word(row, "ref_id"), "split": _word(row, "split")}
    if row["_kind"] is not None:
        meta["category"] = row["_kind"]
    return [
        Sample(f"{name}/{n}", image, text(item, "sent"), box, size, meta=meta) for n, item in enumerate(sentences, 1)
    ]


def _open(path: Path, by: str | None) -> tuple[bytes, bytes, Path]:
    try:
        if path.suffix == ".zip":
            return _open_zip(path, by)
        if path.suffix == ".p":
            return _refs(path), read_whole(path.with_name("instances.json")), path
        found = _choose(sorted(item.name for item in path.glob("refs(*).p")), by, path)
        return _refs(path / found), read_whole(path / "instances.json"), path / found
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing: refs(*).p and instances.json belong together") from None
    except _BROKEN_ZIP as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _refs(path: Path) -> bytes:
    content = read_whole(path)
    if len(content) > MAX_REFS:
        raise DataError(f"{path} holds more than {MAX_REFS // 2**20} MB: it is no refs(*).p of RefCOCO")
    return content


def _open_zip(path: Path, by: str | None) -> tuple[bytes, bytes, Path]:
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        refs = _choose(sorted(n for n in names if Path(n).match("refs(*).p") and "__MACOSX" not in n), by, path)
        instances = str(Path(refs).with_name("instances.json").as_posix())
        if instances not in names:
            raise DataError(f"{path} has no {instances}: refs(*).p and instances.json belong together")
        for name, most in ((refs, MAX_REFS), (instances, MAX_BYTES)):  # no more is unpacked than is said here
            if archive.getinfo(name).file_size > most:
                raise DataError(f"{path} unpacks {name} to more than {most // 2**20} MB: it is not a UNC zip")
        return archive.read(refs), archive.read(instances), path / refs


def _choose(names: list[str], by: str | None, path: Path) -> str:
    if by is not None:
        names = [name for name in names if name.endswith(f"refs({by}).p")]
    if len(names) == 1:
        return names[0]
    wanted = f"refs({by or '*'}).p"
    if not names and path.is_dir() and (shards := sorted(path.glob("*.parquet"))):
        raise DataError(f"{path} is a folder of {len(shards)} parquet files: give one, such as {shards[0]}")
    if not names:
        raise DataError(f"{path} has no {wanted}: unpack the UNC zip there")
    raise DataError(f"{path} has several splits ({', '.join(names)}): give the path of one")
