"""Plain rows, `{image, sent, bbox, height, width}`: evaluation files of Qwen, InternVL and EGM, and what EGM writes.

`bbox` is `x1, y1, x2, y2` in pixels; `id`, `amodal` and `rationale` are optional, and anything else becomes the
sample's `meta`.
"""

from __future__ import annotations

from egm.datasets.fields import Row, flag, identity, name_of_picture, pixels, text, xyxy
from egm.datasets.formats.base import Format
from egm.datasets.image_root import ImageRoot
from egm.errors import DataError
from egm.types import Sample

_KNOWN = frozenset({"id", "image", "sent", "bbox", "height", "width", "amodal", "rationale"})


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read `{image, sent, bbox, height, width}`."""
    row = {**row, "image": name_of_picture(row.get("image"))}
    missing = [key for key in ("image", "sent") if not isinstance(row.get(key), str) or not row[key].strip()]
    if missing:
        raise DataError(f"has no {' and no '.join(missing)}")
    box, rationale = row.get("bbox"), row.get("rationale")
    sample = Sample(
        id=identity(row, "id", name),
        image=images(row["image"]),
        phrase=text(row, "sent"),
        box=None if box is None else xyxy(box),
        size=pixels(row),
        amodal=flag(row, "amodal"),
        rationale=rationale if isinstance(rationale, str) and rationale else None,
        meta={key: value for key, value in row.items() if key not in _KNOWN},
    )
    return [sample]


FORMAT = Format("Qwen, InternVL or EGM rows", frozenset({"image", "sent"}), _read)
