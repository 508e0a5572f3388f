"""Boxes to `supervision.Detections` and back; corners `x1, y1, x2, y2` in pixels on both sides.

Source: supervision 0.31, `supervision.detection.core.Detections` (github.com/roboflow/supervision).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from egm.boxes import Box
from egm.errors import BoxError
from egm.extras import need


def to_detections(
    boxes: Sequence[Box],
    *,
    phrase: str,
    labels: Sequence[str | None],
    confidences: Sequence[float | None],
) -> Any:
    """Write boxes as a `supervision.Detections`.

    Args:
        boxes: In pixels.
        phrase: What all of them answer: `data["class_name"]`, which supervision's annotators show; `class_id` is 0.
        labels: What the model wrote beside each: `data["label"]`, empty where it wrote nothing.
        confidences: Of each box; `confidence` is None unless all are known.

    Raises:
        MissingExtraError: If supervision is not installed.
    """
    need("Grounding.to_supervision", "supervision")
    import numpy as np
    from supervision import Detections

    sure = [share for share in confidences if share is not None]
    return Detections(
        xyxy=np.array([box.corners for box in boxes], dtype=np.float64).reshape(-1, 4),
        confidence=np.array(sure, dtype=np.float64) if len(sure) == len(boxes) else None,
        class_id=np.zeros(len(boxes), dtype=np.int64),
        data={
            "class_name": np.array([phrase] * len(boxes), dtype=np.str_),
            "label": np.array([label or "" for label in labels], dtype=np.str_),
        },
    )


def from_detections(detections: Any) -> list[tuple[Box, str | None, float | None]]:
    """Read the boxes of a `supervision.Detections`, each with its label and its confidence if it has them.

    A label is what `to_detections` calls so, else the name of the class.

    Raises:
        BoxError: If a row is no box; the message names it.
    """
    boxes = []
    for number, corners in enumerate(detections.xyxy.tolist()):
        try:
            boxes.append(Box(*corners))
        except BoxError as error:
            raise BoxError(f"detection {number}: {error}") from None
    named = detections.data.get("label", detections.data.get("class_name"))
    labels = [None] * len(boxes) if named is None else [str(label) or None for label in named]
    sure = [None] * len(boxes) if detections.confidence is None else [*map(float, detections.confidence)]
    return list(zip(boxes, labels, sure, strict=True))
