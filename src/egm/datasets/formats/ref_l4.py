"""Ref-L4 and HC-RefLoCo: `{id, caption, bbox, bbox_area, file_name, width, height}` in parquet or JSON.

`bbox` is `x, y, width, height` in pixels. Source: the dataset cards of JierunChen/Ref-L4 and Jinjing713/HC-RefLoCo on
the Hugging Face Hub, and the readers of JierunChen/Ref-L4 (`ref_l4/`) and ZhaoJingjing713/HC-RefLoCo (`hc_refloco/`).
"""

from __future__ import annotations

from egm.datasets.fields import Row, identity, pixels, text, xywh
from egm.datasets.formats.base import Format
from egm.datasets.image_root import ImageRoot
from egm.types import Sample

_FACTS = ("image_id", "is_rewrite", "ori_category_id", "source_dataset")


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row; `meta` gets its category, and of HC-RefLoCo what its caption speaks of (`subjects`)."""
    meta = {key: row[key] for key in _FACTS if isinstance(row.get(key), str | int | bool)}
    labels = row.get("labels")
    named = [label.get("category") for label in labels if isinstance(label, dict)] if isinstance(labels, list) else []
    if subjects := sorted({each for each in named if isinstance(each, str)}):
        meta["subjects"] = subjects
    picture = images(text(row, "file_name"))
    own = identity(row, "id", name)
    return [Sample(own, picture, text(row, "caption"), xywh(row.get("bbox")), pixels(row), meta=meta)]


_COLUMNS = frozenset({"id", "caption", "bbox", "bbox_area", "file_name", "width", "height", "labels", *_FACTS})
FORMAT = Format(
    "Ref-L4 or HC-RefLoCo", frozenset({"id", "caption", "bbox", "bbox_area", "file_name"}), _read, columns=_COLUMNS
)
