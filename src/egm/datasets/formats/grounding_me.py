"""GroundingME: `{id, description, bbox, subtask_l1, subtask_l2, width, height, image}` in parquet.

`bbox` is `x1, y1, x2, y2` in pixels. Of the subtask `Rejection` nothing matches, whatever its box says; all of it is
asked in the same words, for one box or none. Nothing names a picture, several questions may be about one, and so
pictures are called by their digests. Source: the reader of lirang04/GroundingME (`evaluate.py`), and the card
of the dataset of that name on the Hugging Face Hub.
"""

from __future__ import annotations

from egm.datasets.fields import PICTURE, Row, identity, pixels, text, xyxy
from egm.datasets.formats.base import Format
from egm.datasets.image_root import ImageRoot
from egm.types import Sample

REJECTION = "Rejection"
"""The subtask whose phrases match nothing."""


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row; `meta` gets its subtasks."""
    task, own = text(row, "subtask_l1"), identity(row, "id", name)
    meta = {"kind": task, **({"subtask": row["subtask_l2"]} if isinstance(row.get("subtask_l2"), str) else {})}
    box = None if task == REJECTION else xyxy(row.get("bbox"))
    picture = images(row.get(PICTURE) or f"groundingme_{own.replace('/', '_')}")
    boxes = () if box is None else None
    phrase = text(row, "description")
    return [Sample(own, picture, phrase, box, pixels(row), meta=meta, expect="any", boxes=boxes)]


_COLUMNS = frozenset({"image", "id", "description", "bbox", "subtask_l1", "subtask_l2", "width", "height"})
FORMAT = Format(
    "GroundingME",
    frozenset({"description", "bbox", "subtask_l1"}),
    _read,
    columns=_COLUMNS,
    picture_keys=frozenset(),
)
