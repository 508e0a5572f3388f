"""COCO-style files whose pictures carry the captions: one entry of `images` an expression, as MDETR trains on them.

The annotations of an entry are the true boxes, `x, y, width, height`. FineCops-Ref says by `negative_type` that its
caption matches nothing, whatever box stands there; gRefCOCO, as its authors convert it, by `empty`. What is expected is
the same for a whole file, so that no question tells its answer: `any` where there are negatives or `level`s, `all`
where there is `empty`, else `one`. Sources: the README and `evaluation/eval_metric.py` of liujunzhuo/FineCops-Ref,
`mdetr/scripts/fine-tuning/grefexp_coco_format.py` of henghuiding/gRefCOCO, and the reviewed annotations of RefCOCO in
JierunChen/Ref-L4 on the Hugging Face Hub, whose `caption_quality` is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from egm.datasets.fields import Row, pixels, short, text, xywh
from egm.datasets.image_root import ImageRoot
from egm.datasets.read_rows import Malformed, read_rows
from egm.errors import DataError
from egm.types import Expect, Sample

KIND: Final = "captioned COCO"
"""What messages call the format."""
_FACTS = ("level", "tuple_type", "negative_type", "negative_level", "negative_cate", "positive_id", "caption_quality")


def is_captioned(content: Row) -> bool:
    """Tell whether a COCO object has its captions beside the pictures."""
    pictures, annotations = content.get("images"), content.get("annotations")
    if not isinstance(pictures, list) or not isinstance(annotations, list) or not pictures:
        return False
    return isinstance(pictures[0], dict) and "caption" in pictures[0] and "file_name" in pictures[0]


def read_captioned(
    content: Row, *, name: str, file: Path, images: ImageRoot, malformed: list[Malformed] | None = None
) -> list[Sample]:
    """Read a whole object.

    Args:
        content: The object.
        name: Name of the dataset.
        file: The file, for messages.
        images: Where images are.
        malformed: See `read_rows`.

    Raises:
        DataError: If an entry is wrong; the message names it by its position.
    """
    known = {picture.get("id") for picture in content["images"] if _has_id(picture, "id")}
    by_picture: defaultdict[object, list[Row]] = defaultdict(list)
    for number, annotation in enumerate(content["annotations"], 1):
        if not _has_id(annotation, "image_id"):
            what = "has no image_id"
        elif annotation["image_id"] not in known:
            what = f"image_id {short(annotation['image_id'])} is not among the images"
        else:
            by_picture[annotation["image_id"]].append(annotation)
            continue
        fault = Malformed(file, f"annotation {number}", what)
        if malformed is None:
            raise DataError(str(fault))
        malformed.append(fault)
    expect = _expect([annotation for found in by_picture.values() for annotation in found])

    def rows() -> Iterator[tuple[str, Row | DataError]]:
        seen: set[object] = set()
        for number, picture in enumerate(content["images"], 1):
            where = f"image {number}"
            if not _has_id(picture, "id"):
                yield where, DataError("is not an object with an id")
            elif picture["id"] in seen:
                yield where, DataError(f"has the id {short(picture['id'])}, which stands for another one too")
            else:
                seen.add(picture["id"])
                yield where, {**picture, "_annotations": by_picture.get(picture["id"], []), "_expect": expect}

    return read_rows(rows(), _sample, name=name, file=file, images=images, malformed=malformed)


def _has_id(item: Any, key: str) -> bool:
    return isinstance(item, dict) and isinstance(item.get(key), int | str)


def _expect(annotations: list[Row]) -> Expect:
    if any("negative_type" in each or "level" in each for each in annotations):
        return "any"
    return "all" if any("empty" in each for each in annotations) else "one"


def _sample(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    found, expect = row["_annotations"], row["_expect"]
    if not found:
        raise DataError("has no annotation, neither a box nor that there is none")
    truths = [xywh(each.get("bbox")) for each in found if not _is_none(each)]
    if truths and len(truths) < len(found):
        raise DataError("says both that nothing matches and that something does")
    if len(truths) > 1 and expect != "all":
        raise DataError(f"has {len(truths)} boxes, where one is asked for")
    meta: dict[str, Any] = {key: found[0][key] for key in _FACTS if _says(found[0].get(key))}
    if (quality := found[0].get("caption_quality")) is not None:
        if type(quality) not in (int, float) or quality % 1:  # which would be no doubt
            raise DataError(f"caption_quality {short(quality)} is not a whole number")
        meta["caption_quality"] = int(quality)
    if "negative_cate" in meta:
        meta["kind"] = f"negative {meta['negative_cate']}"
    if isinstance(row.get("original_id"), int):
        meta["image_id"] = row["original_id"]
    boxes = None if len(truths) == 1 else tuple(truths)
    box = truths[0] if len(truths) == 1 else None
    picture = images(text(row, "file_name"))
    return [Sample(name, picture, text(row, "caption"), box, pixels(row), meta=meta, expect=expect, boxes=boxes)]


def _is_none(annotation: Row) -> bool:
    return annotation.get("empty") is True or _says(annotation.get("negative_type"))


def _says(fact: Any) -> bool:
    """Whether a fact is one: an empty text and false say nothing, where the fact is in what way a caption is wrong."""
    return bool(fact.strip()) if isinstance(fact, str) else isinstance(fact, int) and fact is not False
