"""jxu124's RefCOCO: `{ref_id, sentences, bbox}` in parquet, with `sent` or `raw` in each sentence.

`bbox` is `x1, y1, x2, y2` in pixels. Source: jxu124/refcoco and its sisters on the Hugging Face Hub.
"""

from __future__ import annotations

import json

from egm.datasets.coco_names import image_of_ref
from egm.datasets.fields import Row, text, xyxy
from egm.datasets.formats.base import Format
from egm.datasets.formats.expressions import samples_of_list
from egm.datasets.image_root import ImageRoot
from egm.errors import DataError
from egm.types import Sample


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row of jxu124: a sample for each sentence."""
    info = row.get("raw_image_info")
    try:
        details = json.loads(info) if isinstance(info, str) else {}
        stored = details.get("file_name")
        phrases = [sentence.get("sent") or sentence.get("raw") for sentence in row.get("sentences") or []]
    except (TypeError, AttributeError, ValueError, RecursionError):
        raise DataError("sentences must be a list of objects with sent, and raw_image_info JSON") from None
    file_name = stored or image_of_ref(text(row, "file_name"))
    meta = {"ref": row.get("ref_id"), **{key: row.get(key) for key in ("image_id", "category_id", "split")}}
    return samples_of_list(details | row, name, images(file_name), phrases, xyxy(row.get("bbox")), meta)


FORMAT = Format("jxu124", frozenset({"ref_id", "sentences", "bbox"}), _read, lists="sentences")
