"""MiniGPT-4's evaluation files: a JSON list of `{img_id, sents, bbox, height, width}`.

`img_id` is the COCO image with the number of the referent behind it, `sents` is one expression, `bbox` is `x, y, width,
height` in pixels. Source: Vision-CAIR/MiniGPT-4, `eval_scripts/eval_data`.
"""

from __future__ import annotations

from egm.datasets.coco_names import split_ref
from egm.datasets.fields import Row, pixels, short, text, xywh
from egm.datasets.formats.base import Format
from egm.datasets.image_root import ImageRoot
from egm.errors import DataError
from egm.types import Sample


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row; `meta` gets `image_id` and `ref`."""
    ref = text(row, "img_id")
    parts = split_ref(ref)
    if parts is None:
        raise DataError(f"img_id {short(ref)} is not a COCO image and a number, such as COCO_train2014_000000580957_4")
    return [
        Sample(
            id=name,
            image=images(parts[0]),
            phrase=text(row, "sents"),
            box=xywh(row.get("bbox")),
            size=pixels(row),
            meta={"image_id": parts[1], "ref": ref},
        )
    ]


_COLUMNS = frozenset({"img_id", "sents", "bbox", "width", "height"})
FORMAT = Format("MiniGPT-4", frozenset({"img_id", "sents", "bbox"}), _read, columns=_COLUMNS)
