"""Label Studio's tasks as it exports them (JSON, not JSON-MIN): `{data: {image, phrase}, annotations}`.

The phrase is `data.phrase`; the true boxes are the rectangles of the one annotation that was not cancelled: `x, y,
width, height` in per cent of the sides `original_width` and `original_height`. Several rectangles, or none, are the
true boxes where `data.expect` is `all` or `any`. Source: labelstud.io/guide/export and /guide/task_format.
"""

from __future__ import annotations

import urllib.parse
from typing import Any

from egm.boxes import Box
from egm.datasets.fields import Row, flag, identity, is_coordinate, pixels, short, text
from egm.datasets.formats.base import Format
from egm.datasets.image_root import ImageRoot
from egm.errors import BoxError, DataError
from egm.images import is_url
from egm.types import EXPECTS, Sample

FROM_NAME, TO_NAME, REFERENT = "box", "image", "referent"
"""Names of the rectangles' tag and of the picture's in the interface of exported tasks, and their only label."""
_LOCAL = "/data/local-files/?d="
_PLACES = 6
_UPLOAD = "/data/upload/"
_RECTANGLES = ("rectanglelabels", "rectangle")


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    data = row["data"]
    if not isinstance(data, dict):
        raise DataError("data must be an object with image and phrase")
    expect = data.get("expect", "one")
    if expect not in EXPECTS:
        raise DataError(f"data.expect {short(expect)} is none of {', '.join(EXPECTS)}")
    boxes, size = _boxes(row["annotations"])
    if expect == "one" and len(boxes) != 1:
        what = f"{len(boxes)} rectangles" if boxes else "no rectangle"
        raise DataError(f"has {what} where one box is expected: leave one, or say expect in the task's data")
    truth: dict[str, Any] = {"box": boxes[0]} if len(boxes) == 1 else {"boxes": tuple(boxes)}
    return [
        Sample(
            id=identity(data, "id", str(row.get("id") or name)),
            image=images(_name(text(data, "image"))),
            phrase=text(data, "phrase"),
            size=size,
            amodal=flag(data, "amodal"),
            expect=expect,
            meta={key: data[key] for key in ("split", "kind", "category") if isinstance(data.get(key), str)},
            **truth,
        )
    ]


def _name(image: str) -> str:
    """The picture's name: behind the address of local storage the path there, else as it stands."""
    if image.startswith(_LOCAL):
        return urllib.parse.unquote(image[len(_LOCAL) :])
    if image.startswith(_UPLOAD):  # the folder of Label Studio's own media
        return urllib.parse.unquote(image.rpartition("/")[2])
    if is_url(image):
        raise DataError(f"image {short(image)} is a URL, and nothing is fetched: download it and give its name")
    return image


def _boxes(annotations: Any) -> tuple[list[Box], tuple[int, int] | None]:
    """The rectangles of the annotation that counts, and the size of the picture if one says it."""
    if not isinstance(annotations, list) or not all(isinstance(item, dict) for item in annotations):
        raise DataError("annotations must be a list of objects")
    kept = [item for item in annotations if not item.get("was_cancelled")]
    if len(kept) != 1:
        raise DataError(f"has {len(kept)} annotations, and one is needed: label it, or keep the one that counts")
    regions = kept[0].get("result")
    if not isinstance(regions, list) or not all(isinstance(item, dict) for item in regions):
        raise DataError("annotations.result must be a list of objects")
    boxes, sizes = [], set()
    for region in regions:
        if region.get("type") in _RECTANGLES:
            size = pixels({"width": region.get("original_width"), "height": region.get("original_height")})
            if size is None:
                raise DataError("a rectangle says no original_width and original_height, which its per cent are of")
            boxes.append(_box(region.get("value"), size))
            sizes.add(size)
    if len(sizes) > 1:
        raise DataError("its rectangles are of pictures of several sizes")
    return boxes, sizes.pop() if sizes else None


def _box(value: Any, size: tuple[int, int]) -> Box:
    keys = ("x", "y", "width", "height")
    if not isinstance(value, dict) or not all(is_coordinate(value.get(key)) for key in keys):
        raise DataError(f"a rectangle's value {short(value)} lacks x, y, width, height in per cent")
    if value.get("rotation") not in (None, 0):
        raise DataError(f"a rectangle is rotated by {short(value['rotation'])} degrees, and a box is upright")
    x, y, width, height = (value[key] / 100 for key in keys)
    try:
        box = Box.from_xywh((x * size[0], y * size[1], width * size[0], height * size[1]))
        return Box(*(round(edge, _PLACES) for edge in box))  # so that what touches the frame does not leave it
    except BoxError as error:
        raise DataError(f"a rectangle is no box: {error}") from None


FORMAT = Format("Label Studio tasks", frozenset({"data", "annotations"}), _read)
