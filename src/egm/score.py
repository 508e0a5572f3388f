"""The one place where a prediction meets the truth: evaluation and rewards call the same function."""

from __future__ import annotations

from egm.boxes import Box, iou
from egm.types import Grounding, Score


def score(grounding: Grounding, truth: Box) -> Score:
    """Score a grounding against the true box, in float pixels, with nothing rounded or clipped.

    Args:
        grounding: What the model answered, as a codec read it.
        truth: The true box in pixels of the same upright image.

    Returns:
        The IoU; a grounding without a box scores 0 and keeps its failure.
    """
    if grounding.box is None:
        return Score(iou=0.0, failure=grounding.failure)
    return Score(iou=iou(grounding.box, truth))
