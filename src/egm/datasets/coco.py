"""COCO-style files: amodal boxes (COCOA, COCO-Amodal, TAO-Amodal), and plain boxes with a caption.

All are one object with `images` and `annotations`. COCOA's annotations hold `regions`, whose `segmentation` outlines
the whole object and has no box: the box is that of the outline. COCO-Amodal and TAO-Amodal hold `amodal_bbox`, as
`x, y, width, height`. The phrase is the annotation's `caption` or `name`, else the name of its category. An amodal box
may leave the frame and is never clipped. Sources: COCOA (arXiv 1509.01329), TAO-Amodal (arXiv 2312.12433).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from egm.boxes import Box
from egm.datasets.fields import TWICE, Row, by_id, flag, identity, is_coordinate, pixels, short, text, xywh
from egm.datasets.image_root import ImageRoot
from egm.datasets.read_rows import Malformed, RowReader, read_rows
from egm.errors import BoxError, DataError
from egm.types import Sample

KEYS = frozenset({"images", "annotations"})
_FACTS = {"images": ("file_name", "width", "height"), "categories": ("name",)}


def read_coco(
    content: Row, *, name: str, file: Path, images: ImageRoot, malformed: list[Malformed] | None = None
) -> list[Sample]:
    """Read a whole COCO-style object; which kind it is shows in the keys of the first annotation that is of any kind.

    Args:
        content: The object.
        name: Name of the dataset.
        file: The file, for messages.
        images: Where images are.
        malformed: See `read_rows`.

    Raises:
        DataError: If it is none of the kinds, or an annotation is wrong; the message names it by its position.
    """
    pictures, categories = _index(content, "images", file), _index(content, "categories", file)
    annotations = content["annotations"]
    if not isinstance(annotations, list) or not annotations:
        raise DataError(f"{file} has no annotations")
    read = next((reader for item in annotations if (reader := _reader(item)) is not None), None)
    if read is None:
        raise DataError(
            f"{file} is COCO JSON, but its annotations have no phrases to ground: they need regions (COCOA), "
            "amodal_bbox (COCO-Amodal, TAO-Amodal), or bbox and caption"
        )
    rows = _joined(annotations, pictures, categories)
    return read_rows(rows, read, name=name, file=file, images=images, malformed=malformed)


def _reader(annotation: Any) -> RowReader | None:
    if not isinstance(annotation, dict):
        return None
    if "regions" in annotation:
        return _regions
    if "amodal_bbox" in annotation:
        return _amodal
    return _captioned if {"bbox", "caption"} <= annotation.keys() else None


def _index(content: Row, key: str, file: Path) -> dict[Any, Any]:
    try:
        return by_id(content.get(key, []), "id", *_FACTS[key])
    except (TypeError, KeyError):
        raise DataError(f"{file}: {key} must be a list of objects with an id") from None


def _joined(
    annotations: list[Any], images: dict[Any, Any], categories: dict[Any, Any]
) -> Iterator[tuple[str, Row | DataError]]:
    for number, annotation in enumerate(annotations, 1):
        where = f"annotation {number}"
        if not isinstance(annotation, dict):
            yield where, DataError("is not an object")
            continue
        key, category = annotation.get("image_id"), annotation.get("category_id")
        image = images.get(key) if isinstance(key, int | str) else None
        if image is None:
            yield where, DataError(f"image_id {short(key)} is not among the images")
            continue
        if image is TWICE:
            yield where, DataError(f"image_id {short(key)} stands twice among the images, and not for the same")
            continue
        kind = categories.get(category, {}) if isinstance(category, int | str) else {}
        if kind is TWICE:
            yield where, DataError(f"category_id {short(category)} stands twice among the categories, by two names")
            continue
        yield where, {**annotation, "_image": image, "_category": kind}


def _regions(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    if not isinstance(row.get("regions"), list):
        raise DataError("has no regions")
    samples = []
    for number, region in enumerate(row["regions"], 1):
        try:
            box, phrase = _outline(region["segmentation"]), text(region, "name")
        except (TypeError, KeyError):
            raise DataError(f"region {number} has no segmentation") from None
        except (DataError, BoxError) as error:
            raise DataError(f"region {number}: {error}") from None
        meta = {key: region[key] for key in ("occlude_rate", "isStuff") if key in region}
        samples.append(_sample(row, f"{name}/{number}", images, phrase, box, amodal=True, more=meta))
    return samples


def _outline(segmentation: Any) -> Box:
    """The box around polygons, given flat or as a list of flat lists: `x, y, x, y, ...` in pixels."""
    nested = isinstance(segmentation, list) and all(isinstance(polygon, list) for polygon in segmentation)
    polygons = segmentation if nested else [segmentation]
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) % 2 or not all(map(is_coordinate, polygon)):
            raise DataError("segmentation is not a polygon of x, y, x, y, ...")
    xs = [value for polygon in polygons for value in polygon[0::2]]
    ys = [value for polygon in polygons for value in polygon[1::2]]
    if not xs:
        raise DataError("segmentation is an empty polygon")
    return Box(min(xs), min(ys), max(xs), max(ys))


def _amodal(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    box = xywh(row.get("amodal_bbox"), "amodal_bbox")
    more: Row = {key: row[key] for key in ("track_id", "occlude_rate", "visibility", "category_id") if key in row}
    if isinstance(row["_category"].get("name"), str):
        more["category"] = row["_category"]["name"]
    return [_sample(row, name, images, _phrase(row), box, amodal=True, more=more)]


def _captioned(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    box = xywh(row.get("bbox"))
    return [
        _sample(
            row,
            identity(row, "sample_id", name),
            images,
            text(row, "caption"),
            box,
            amodal=flag(row, "amodal"),
            more={},
        )
    ]


def _phrase(row: Row) -> str:
    for source, key in ((row, "caption"), (row, "name"), (row["_category"], "name")):
        if isinstance(source.get(key), str) and source[key].strip():
            return str(source[key])
    raise DataError("has no caption, no name and no category")


def _sample(row: Row, name: str, images: ImageRoot, phrase: str, box: Box, *, amodal: bool, more: Row) -> Sample:
    return Sample(
        id=name,
        image=images(text(row["_image"], "file_name")),
        phrase=phrase,
        box=box,
        size=pixels(row["_image"]),
        amodal=amodal,
        meta={"image_id": row["image_id"], **more},
    )
