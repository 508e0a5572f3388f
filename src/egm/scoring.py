"""The one place where a prediction meets the truth: evaluation and rewards call the same function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from egm.assignment import assign, bottleneck_iou
from egm.boxes import Box, giou_array, iou_array, pairwise_iou
from egm.types import Grounding, Score

if TYPE_CHECKING:
    from egm.boxes import FloatArray

Truth: TypeAlias = Box | Sequence[Box]
"""The true box in pixels of the upright image; or, where any number is asked for, the true boxes."""


def score(grounding: Grounding, truth: Truth) -> Score:
    """Score a grounding against the true box, in float pixels, with nothing rounded or clipped.

    Args:
        grounding: What the model answered, as a codec read it.
        truth: The true box in pixels of the same upright image; or the true boxes, none where nothing matches.

    Returns:
        The IoU, see `Score`; a failure scores 0 and stays one.

    Example:
        >>> from egm.codecs import get_codec
        >>> codec = get_codec("qwen3_vl_instruct")
        >>> found = codec.parse('[{"bbox_2d": [0, 0, 500, 500]}]', size=(100, 100))
        >>> score(found, Box(0, 0, 50, 100))
        Score(iou=0.5, failure=None)
        >>> score(codec.parse("a nice picture", size=(100, 100)), Box(0, 0, 50, 100)).iou
        0.0
    """
    return score_all([grounding], [truth])[0]


def score_all(groundings: Sequence[Grounding], truths: Sequence[Truth]) -> list[Score]:
    """Score many groundings, each against its own truth, as `score` does, but an order of magnitude faster.

    Args:
        groundings: What a model answered.
        truths: The truth of each.
    """
    pairs = [_single(g.answered, t) for g, t in zip(groundings, truths, strict=True)]
    single = [pair for pair in pairs if pair is not None]
    overlaps = iter(iou_array([a for a, _ in single], [b for _, b in single]).tolist() if single else ())
    return [
        Score(next(overlaps) if pair is not None else _set_iou(grounding, truth), failure=grounding.failure)
        for grounding, truth, pair in zip(groundings, truths, pairs, strict=True)
    ]


def overlaps_of(groundings: Sequence[Grounding], truths: Sequence[Truth]) -> tuple[FloatArray, FloatArray]:
    """IoU and GIoU of many groundings, which tell a near answer from a far one; of one box they are its own.

    Of any number of boxes, answered and true ones are assigned so that the sum of their IoUs is the greatest; both are
    then the mean over the pairs, where each box that is left over counts as a pair of IoU 0 and GIoU -1. "Nothing
    matches" gets 1 where that is so, else 0 and -1, as a failure does. Unless one box is expected, every box that an
    answer gives counts: where one may be, evaluation takes the first, but to list more is not to earn as much.

    Args:
        groundings: What a model answered.
        truths: The truth of each.

    Returns:
        Two arrays of shape (N,).
    """
    import numpy as np

    given = [g.answered if g.expect == "one" else tuple(each.box for each in g.boxes) for g in groundings]
    pairs = [_single(boxes, t) for boxes, t in zip(given, truths, strict=True)]
    ious, gious = np.zeros(len(pairs)), np.full(len(pairs), -1.0)
    boxed = [number for number, pair in enumerate(pairs) if pair is not None]
    if boxed:
        both = [pair for pair in pairs if pair is not None]
        ious[boxed] = iou_array([a for a, _ in both], [b for _, b in both])
        gious[boxed] = giou_array([a for a, _ in both], [b for _, b in both])
    for number, (grounding, truth) in enumerate(zip(groundings, truths, strict=True)):
        if pairs[number] is None and grounding.failure is None:
            ious[number], gious[number] = _mean_overlaps(given[number], _listed(truth))
    return ious, gious


def _listed(truth: Truth) -> Sequence[Box]:
    return [truth] if isinstance(truth, Box) else truth


def _single(answered: Sequence[Box], truth: Truth) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """One box against one true box, whose IoU is all that counts; None of anything else."""
    true = _listed(truth)
    return (answered[0].corners, true[0].corners) if len(answered) == len(true) == 1 else None


def _pairwise(answered: Sequence[Box], true: Sequence[Box]) -> FloatArray:
    return pairwise_iou([box.corners for box in answered], [box.corners for box in true])


def _set_iou(grounding: Grounding, truth: Truth) -> float:
    answered, true = grounding.answered, _listed(truth)
    if grounding.failure is not None or len(answered) != len(true):
        return 0.0
    return bottleneck_iou(_pairwise(answered, true))


def _mean_overlaps(answered: Sequence[Box], true: Sequence[Box]) -> tuple[float, float]:
    if not answered or not true:
        return (1.0, 1.0) if not answered and not true else (0.0, -1.0)
    ious = _pairwise(answered, true)
    pairs = assign(ious)
    count = max(len(answered), len(true))
    gious = giou_array([answered[a].corners for a, _ in pairs], [true[b].corners for _, b in pairs])
    overlap = sum(float(ious[pair]) for pair in pairs) / count
    return overlap, (float(gious.sum()) - (count - len(pairs))) / count
