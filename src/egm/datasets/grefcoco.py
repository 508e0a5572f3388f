"""gRefCOCO: `grefs(unc).json`, or the same as a pickle, beside `instances.json`; all boxes of an expression, or none.

As the UNC release, but that `ann_id` lists objects: several, or -1 alone where nothing matches. Source: `grefer.py` of
henghuiding/gRefCOCO; its files are FudanCVL/gRefCOCO on the Hugging Face Hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from egm.boxes import Box
from egm.datasets.fields import TWICE, Row, by_id, pixels, short, text, xywh
from egm.datasets.image_root import ImageRoot
from egm.datasets.inputs import JsonError, load_json, read_whole
from egm.datasets.plain_pickle import load_plain_pickle
from egm.datasets.read_rows import Malformed, read_rows
from egm.errors import DataError
from egm.types import Sample

NAMES = ("grefs(unc).json", "grefs(unc).p")
"""What the file of references is called."""


def read_grefcoco(
    path: Path, *, name: str, images: ImageRoot, split: str | None = None, malformed: list[Malformed] | None = None
) -> list[Sample]:
    """Read gRefCOCO.

    Args:
        path: The file of references; `instances.json` lies beside it.
        name: Name of the dataset.
        images: Where images are.
        split: Only this split, such as `testA`; all of them if left out.
        malformed: See `read_rows`.

    Raises:
        DataError: If a file is missing or wrong; the message names the row.
    """
    try:
        content = read_whole(path)
        instances = read_whole(path.with_name("instances.json"))
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing: grefs(*).json and instances.json belong together") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    try:
        rows = load_plain_pickle(content, str(path)) if path.suffix == ".p" else load_json(content)
        objects = load_json(instances)
        pictures = by_id(objects["images"], "file_name", "width", "height")
        boxes = by_id(objects["annotations"], "bbox", "image_id")
    except JsonError as error:
        raise DataError(f"{path} or instances.json beside it {error}") from None
    except (TypeError, KeyError, AttributeError):
        raise DataError(f"instances.json beside {path} is not COCO JSON with images and annotations") from None
    if not isinstance(rows, list):
        raise DataError(f"{path} must hold a list of references")

    def of_split() -> Iterator[tuple[str, Row | DataError]]:
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                yield f"row {number}", DataError("is not an object")
            elif split is None or row.get("split") == split:
                yield f"row {number}", row

    def read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
        return _samples(row, name, images, pictures, boxes)

    return read_rows(of_split(), read, name=name, file=path, images=images, malformed=malformed)


def _samples(
    row: Row, name: str, images: ImageRoot, pictures: Mapping[Any, Any], boxes: Mapping[Any, Any]
) -> list[Sample]:
    key = row.get("image_id")
    picture = pictures.get(key) if isinstance(key, int) else None
    if picture is None or picture is TWICE:
        raise DataError(f"has an image_id {short(key)} that stands not once in instances.json")
    truths = _truths(row, boxes)
    sentences = row.get("sentences")
    if not isinstance(sentences, list) or not all(isinstance(item, dict) for item in sentences):
        raise DataError("sentences must be a list of objects with sent")
    image, size = images(text(picture, "file_name")), pixels(picture)
    meta = {"image_id": key}
    if isinstance(row.get("ref_id"), int):
        meta["ref"] = row["ref_id"]
    box, several = (truths[0], None) if len(truths) == 1 else (None, truths)
    return [
        Sample(f"{name}/{n}", image, text(item, "sent"), box, size, meta=meta, expect="all", boxes=several)
        for n, item in enumerate(sentences, 1)
    ]


def _truths(row: Row, boxes: Mapping[Any, Any]) -> tuple[Box, ...]:
    listed = row.get("ann_id")
    listed = listed if isinstance(listed, list) else [listed]
    if listed == [-1]:
        return ()
    found = []
    for key in listed:
        annotation = boxes.get(key) if isinstance(key, int) else None
        if annotation is None or annotation is TWICE:
            raise DataError(f"has an ann_id {short(key)} that stands not once in instances.json")
        if annotation.get("image_id") != row.get("image_id"):
            raise DataError(f"ann_id {short(key)} is of another picture than image_id {short(row.get('image_id'))}")
        found.append(xywh(annotation["bbox"]))
    if not found:
        raise DataError("has an empty ann_id: -1 says that nothing matches")
    return tuple(dict.fromkeys(found))
