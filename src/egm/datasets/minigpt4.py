"""MiniGPT-4's evaluation files: a JSON list of `{img_id, sents, bbox, height, width}`.

`img_id` is the COCO image with the number of the referent behind it, `sents` is one expression, `bbox` is `x, y, width,
height` in pixels. Source: Vision-CAIR/MiniGPT-4, `eval_scripts/eval_data`.
"""

from __future__ import annotations

import re

from egm.datasets.rows import ImageRoot, Row, pixels, text, xywh
from egm.errors import DataError
from egm.types import Sample

KEYS = frozenset({"img_id", "sents", "bbox"})
_REF = re.compile(r"(COCO_(?:train|val)2014_(\d{12}))_\d+")


def sample_of(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row; `meta` gets `image_id` and `ref`."""
    ref = text(row, "img_id")
    parts = _REF.fullmatch(ref)
    if parts is None:
        raise DataError(f"img_id {ref!r} is not a COCO image and a number, such as COCO_train2014_000000580957_4")
    return [
        Sample(
            id=name,
            image=images(f"{parts[1]}.jpg"),
            phrase=text(row, "sents"),
            box=xywh(row.get("bbox")),
            size=pixels(row),
            meta={"image_id": int(parts[2]), "ref": ref},
        )
    ]


def ref_image(file_name: str) -> str:
    """The image of a referent's file name: `COCO_train2014_000000581857_16.jpg` is about `..._000000581857.jpg`."""
    parts = _REF.fullmatch(file_name.removesuffix(".jpg"))
    return file_name if parts is None else f"{parts[1]}.jpg"
