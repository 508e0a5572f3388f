"""RefCOCO-M: `{image, file_name, samples: [{id, sentences, bbox, category}]}` in parquet, the picture in the file.

`bbox` is `x, y, width, height` in pixels; the masks, which are what was made anew, are not read. Source: the dataset
card of moondream/refcoco-m on the Hugging Face Hub.
"""

from __future__ import annotations

from egm.datasets.fields import Row, pixels, short, text, xywh
from egm.datasets.formats.base import Format
from egm.datasets.formats.expressions import samples_of_list
from egm.datasets.image_root import ImageRoot
from egm.errors import DataError
from egm.types import Sample


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row of one picture: a sample for each expression of each of its objects."""
    picture, objects = images(text(row, "file_name")), row.get("samples")
    if not isinstance(objects, list) or not objects or not all(isinstance(each, dict) for each in objects):
        raise DataError(f"samples must be a list of objects, not {short(objects)}")
    found: list[Sample] = []
    for number, each in enumerate(objects, 1):
        try:
            size = _size_of_mask(each) or pixels(row)
            facts = {} if size is None else {"width": size[0], "height": size[1]}
            meta = {"ref": each.get("id"), "category": each.get("category"), "image_id": row.get("image_id")}
            box = xywh(each.get("bbox"))
            found += samples_of_list(facts, f"{name}/{number}", picture, each.get("sentences"), box, meta)
        except DataError as error:
            raise DataError(f"sample {number} {error}") from None
    return found


def _size_of_mask(each: Row) -> tuple[int, int] | None:
    """Width and height of the picture, which a mask says in the other order."""
    mask = each.get("mask")
    size = mask.get("size") if isinstance(mask, dict) else None
    if not isinstance(size, list) or len(size) != 2:
        return None
    return pixels({"width": size[1], "height": size[0]})


_COLUMNS = frozenset({"image", "image_id", "file_name", "samples", "width", "height"})
FORMAT = Format("RefCOCO-M", frozenset({"file_name", "samples"}), _read, columns=_COLUMNS, nests=True)
