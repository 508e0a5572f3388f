"""ms-swift's conversations: `{messages, images}`, turns of `user` and `assistant`, `<image>` for the picture.

LLaMA-Factory's files of such turns look the same. A box stands in the answer, in the convention that `codec` names
(EGM's addition, which the tool passes over); or in ms-swift's own `objects`, with `<bbox>` in its place and
`<ref-object>` in that of the phrase, in pixels of the original image or, by `bbox_type`, in shares of its sides.
Source: modelscope/ms-swift, `docs/source_en/Customization/Custom-dataset.md`.
"""

from __future__ import annotations

from typing import Any

from egm.boxes import Box
from egm.datasets.fields import Row, pixels, short, xyxy
from egm.datasets.formats.base import Format
from egm.datasets.formats.conversation import sample_of_turns, two_turns
from egm.datasets.image_root import ImageRoot
from egm.errors import DataError
from egm.types import Sample


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row."""
    turns = row.get("messages")
    question, answer = two_turns(turns, who="role", says="content", asks=("user",), answers=("assistant",))
    objects, box = row.get("objects"), None
    if isinstance(objects, dict) and objects.get("bbox"):
        box = _box_of(objects, row)
        names = objects.get("ref")
        if isinstance(names, list) and names and isinstance(names[0], str):
            question = question.replace("<ref-object>", names[0], 1)
    return [sample_of_turns(row, name, images, row.get("images"), question, answer, box=box)]


def _box_of(objects: dict[str, Any], row: Row) -> Box:
    boxes, scale = objects["bbox"], objects.get("bbox_type") or "real"
    if not isinstance(boxes, list) or len(boxes) != 1:
        raise DataError(f"objects holds {len(boxes) if isinstance(boxes, list) else 'no'} boxes: one is needed")
    box = xyxy(boxes[0], "objects.bbox")
    if scale == "real":
        return box
    size = pixels(row)
    if scale != "norm1" or size is None:
        raise DataError(f"objects.bbox_type {short(scale)} needs to be real, or norm1 with width and height in the row")
    return Box(box.x1 * size[0], box.y1 * size[1], box.x2 * size[0], box.y2 * size[1])


FORMAT = Format("ms-swift", frozenset({"messages", "images"}), _read, scale="pixels or 0-1000")
