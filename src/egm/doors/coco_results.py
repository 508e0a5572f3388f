"""Answers as COCO results, and the questions as the annotations that they are held against; `x, y, width, height`.

Each *question* is an image of its own there, as gRefCOCO has it: a box that answers one phrase is then never matched
with the object of another. Source of the two forms: cocodataset.org/#format-results, as pycocotools 2.0 reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from egm.boxes import Box
from egm.doors.answers import ExportedAnswer, known_size
from egm.errors import DataError

CATEGORY = {"id": 1, "name": "referent"}
"""The only category: what the phrase of the question refers to."""


def coco_results(answers: Sequence[ExportedAnswer]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Write answers for `COCO.loadRes`, and the truth for `COCO`, where it is known.

    Args:
        answers: Their number, counted from 1, is `image_id`. A box without a confidence gets the score 1.

    Returns:
        The results: a list of `image_id`, `category_id`, `bbox` (x, y, width, height in pixels) and `score`. And the
        annotations: `images` with `file_name`, `caption` (the phrase) and `sample_id`, `annotations` and `categories`.

    Raises:
        DataError: If the size of a picture is not known, or the truth of some answers is and that of others is not.
    """
    results, images, annotations = [], [], list[dict[str, Any]]()
    for number, answer in enumerate(answers, 1):
        width, height = known_size(answer)
        images.append(
            {
                "id": number,
                "file_name": answer.image,
                "width": width,
                "height": height,
                "caption": answer.phrase,
                "sample_id": answer.id,
            }
        )
        for box, sure in zip(answer.boxes, answer.confidences, strict=True):
            score = 1.0 if sure is None else sure
            results.append({"image_id": number, "category_id": 1, "bbox": box_xywh(box), "score": score})
        for box in answer.truths or ():
            xywh = box_xywh(box)
            facts = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
            annotations.append({**facts, "bbox": xywh, "area": xywh[2] * xywh[3], "iscrowd": 0})
    known = sum(answer.truths is not None for answer in answers)
    if 0 < known < len(answers):
        raise DataError(f"the truth of {known} of {len(answers)} answers is known: export those alone")
    return results, {"images": images, "annotations": annotations, "categories": [CATEGORY]}


def box_xywh(box: Box) -> list[float]:
    """Return a box as COCO's `x, y, width, height` in pixels."""
    return [box.x1, box.y1, box.width, box.height]
