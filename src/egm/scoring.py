"""The one place where a prediction meets the truth: evaluation and rewards call the same function."""

from __future__ import annotations

from collections.abc import Sequence

from egm.boxes import Box, iou_array
from egm.types import Grounding, Score


def score(grounding: Grounding, truth: Box) -> Score:
    """Score a grounding against the true box, in float pixels, with nothing rounded or clipped.

    Args:
        grounding: What the model answered, as a codec read it.
        truth: The true box in pixels of the same upright image.

    Returns:
        The IoU; a grounding without a box scores 0 and keeps its failure.
    """
    return score_all([grounding], [truth])[0]


def score_all(groundings: Sequence[Grounding], truths: Sequence[Box]) -> list[Score]:
    """Score many groundings, each against its own truth, as `score` does, but an order of magnitude faster.

    Args:
        groundings: What a model answered.
        truths: One true box a grounding.
    """
    has_box = [g.box is not None for g in groundings]
    pairs = [(tuple(g.box), tuple(t)) for g, t in zip(groundings, truths, strict=True) if g.box is not None]
    overlaps = iter(iou_array([a for a, _ in pairs], [b for _, b in pairs]).tolist() if pairs else ())
    return [
        Score(iou=next(overlaps)) if boxed else Score(iou=0.0, failure=grounding.failure)
        for grounding, boxed in zip(groundings, has_box, strict=True)
    ]
