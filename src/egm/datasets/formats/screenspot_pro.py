"""ScreenSpot-Pro: `{id, img_filename, instruction, bbox, img_size, ui_type, group}` in JSON or parquet.

`bbox` is `x1, y1, x2, y2` in pixels of the screenshot, whose width and height `img_size` says. Source: the readers of
likaixin2000/ScreenSpot-Pro-GUI-Grounding (`eval_screenspot_pro.py`) and of EvalScope (`screenspot_pro_adapter.py`).
"""

from __future__ import annotations

from egm.datasets.fields import PICTURE, Row, identity, pixels, short, text, xyxy
from egm.datasets.formats.base import Format
from egm.datasets.image_root import ImageRoot
from egm.errors import DataError
from egm.types import Sample

_FACTS = ("application", "platform", "ui_type", "group")


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row; its instruction is the phrase, and `kind` tells texts from icons."""
    size = row.get("img_size")
    if not isinstance(size, list) or len(size) != 2:
        raise DataError(f"img_size {short(size)} is not the width and the height of the screenshot")
    own = identity(row, "id", name)
    picture = images(row.get("img_filename") or row.get(PICTURE) or f"{own}.png")
    meta = {key: row[key] for key in _FACTS if isinstance(row.get(key), str)}
    if "ui_type" in meta:
        meta["kind"] = meta["ui_type"]
    sides = pixels({"width": size[0], "height": size[1]})
    return [Sample(own, picture, text(row, "instruction"), xyxy(row.get("bbox")), sides, meta=meta)]


_COLUMNS = frozenset({"image", "id", "img_filename", "instruction", "bbox", "img_size", *_FACTS})
FORMAT = Format(
    "ScreenSpot-Pro",
    frozenset({"instruction", "bbox", "img_size"}),
    _read,
    columns=_COLUMNS,
    picture_keys=frozenset({"img_filename"}),
)
