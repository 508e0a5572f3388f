"""The UNC release of RefCOCO, RefCOCO+ and RefCOCOg: `refs(unc).p` or `refs(umd).p` beside `instances.json`.

The references are a Python 2 pickle of lists, dicts, strings and numbers. It is read by an unpickler that can build
nothing else: a pickle that names any class or function is refused before anything of it runs. Source: lichengunc/refer.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from egm.datasets.fields import Row, pixels, text, xywh
from egm.datasets.image_root import ImageRoot
from egm.datasets.read_rows import Malformed, read_rows
from egm.errors import DataError
from egm.types import Sample

MAX_UNPACKED_BYTES = 2 * 2**30
"""Largest file, unpacked, that is read from a zip."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"it names the persistent object {pid!r}")


def load_plain_pickle(content: bytes, where: str) -> Any:
    """Read a pickle of plain values.

    Args:
        content: The pickle; strings of Python 2 are taken as Latin-1.
        where: What to call it in messages.

    Raises:
        DataError: If it is damaged, or holds anything but lists, dicts, strings, numbers and their like.
    """
    try:
        return _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(f"{where} is not a pickle of plain lists and dicts, and was not run: {error}") from None


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
        content = json.loads(instances)
        pictures = {item["id"]: item for item in content["images"]}
        boxes = {item["id"]: item["bbox"] for item in content["annotations"]}
        kinds = {item["id"]: item["name"] for item in content.get("categories", [])}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DataError(f"instances.json beside {file} is not COCO JSON with images and annotations") from None

    def joined() -> Iterator[tuple[str, Row | DataError]]:
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                yield f"row {number}", DataError("is not a dict")
            elif split is None or row.get("split") == split:
                picture, kind = pictures.get(_key(row, "image_id")), _key(row, "category_id")
                yield f"row {number}", {**row, "_image": picture, "_boxes": boxes, "_kind": kinds.get(kind, kind)}

    return read_rows(joined(), _samples, name=name, file=file, images=images, malformed=malformed)


def _key(row: Row, key: str) -> int | None:
    value = row.get(key)
    return value if isinstance(value, int) else None


def _samples(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    picture, sentences = row["_image"], row.get("sentences")
    if picture is None or _key(row, "ann_id") not in row["_boxes"]:
        raise DataError("has an image_id or ann_id that instances.json lacks")
    if not isinstance(sentences, list) or not all(isinstance(item, dict) for item in sentences):
        raise DataError("sentences must be a list of dicts with sent")
    image, size, box = images(text(picture, "file_name")), pixels(picture), xywh(row["_boxes"][row["ann_id"]])
    meta = {"image_id": row["image_id"], "ref": row.get("ref_id"), "split": row.get("split")}
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
            return path.read_bytes(), path.with_name("instances.json").read_bytes(), path
        found = _choose(sorted(item.name for item in path.glob("refs(*).p")), by, path)
        return (path / found).read_bytes(), (path / "instances.json").read_bytes(), path / found
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing: refs(*).p and instances.json belong together") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _open_zip(path: Path, by: str | None) -> tuple[bytes, bytes, Path]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        refs = _choose(sorted(n for n in names if Path(n).match("refs(*).p") and "__MACOSX" not in n), by, path)
        instances = str(Path(refs).with_name("instances.json").as_posix())
        if instances not in names:
            raise DataError(f"{path} has no {instances}: refs(*).p and instances.json belong together")
        if any(archive.getinfo(name).file_size > MAX_UNPACKED_BYTES for name in (refs, instances)):
            raise DataError(f"{path} unpacks to more than {MAX_UNPACKED_BYTES // 2**30} GB a file: it is not a UNC zip")
        return archive.read(refs), archive.read(instances), path / refs


def _choose(names: list[str], by: str | None, path: Path) -> str:
    if by is not None:
        names = [name for name in names if name.endswith(f"refs({by}).p")]
    if len(names) == 1:
        return names[0]
    wanted = f"refs({by or '*'}).p"
    if not names:
        raise DataError(f"{path} has no {wanted}: unpack the UNC zip there")
    raise DataError(f"{path} has several splits ({', '.join(names)}): give the path of one")
