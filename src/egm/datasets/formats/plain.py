"""Plain rows, `{image, sent, bbox, height, width}`: evaluation files of Qwen, InternVL and EGM, and what EGM writes.

`bbox` is `x1, y1, x2, y2` in pixels; `id`, `amodal` and `rationale` are optional, and anything else becomes the
sample's `meta`. `expect` (one, any or all) says how many boxes are asked for, and `bboxes` lists all true boxes in the
place of `bbox`: none if nothing matches.
"""

from __future__ import annotations

from typing import Any

from egm.datasets.fields import Row, flag, identity, name_of_picture, pixels, short, text, xyxy
from egm.datasets.formats.base import Format
from egm.datasets.image_root import ImageRoot
from egm.errors import DataError
from egm.types import EXPECTS, Sample

_KNOWN = frozenset({"id", "image", "sent", "bbox", "height", "width", "amodal", "rationale", "expect", "bboxes"})


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read `{image, sent, bbox, height, width}`."""
    row = {**row, "image": name_of_picture(row.get("image"))}
    missing = [key for key in ("image", "sent") if not isinstance(row.get(key), str) or not row[key].strip()]
    if missing:
        raise DataError(f"has no {' and no '.join(missing)}")
    rationale = row.get("rationale")
    sample = Sample(
        id=identity(row, "id", name),
        image=images(row["image"]),
        phrase=text(row, "sent"),
        **_truth(row),
        size=pixels(row),
        amodal=flag(row, "amodal"),
        rationale=rationale if isinstance(rationale, str) and rationale else None,
        meta={key: value for key, value in row.items() if key not in _KNOWN},
    )
    return [sample]


def _truth(row: Row) -> dict[str, Any]:
    """What is expected, and the true box or boxes; nothing is known of a row without either."""
    expect, box, listed = row.get("expect", "one"), row.get("bbox"), row.get("bboxes")
    if expect not in EXPECTS:
        raise DataError(f"expect {short(expect)} is none of {', '.join(EXPECTS)}")
    if listed is None:
        if "bboxes" in row and "bbox" not in row:
            raise DataError("bboxes is null: give a list of boxes, empty if nothing matches, or bbox null if unknown")
        return {"expect": expect, "box": None if box is None else xyxy(box)}
    if box is not None or not isinstance(listed, list):
        raise DataError("bboxes must be a list of boxes, in the place of bbox")
    boxes = tuple(xyxy(numbers, "bboxes") for numbers in listed)
    return {"expect": expect, "box": boxes[0]} if len(boxes) == 1 else {"expect": expect, "boxes": boxes}


FORMAT = Format("Qwen, InternVL or EGM rows", frozenset({"image", "sent"}), _read)
