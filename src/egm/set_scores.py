"""Scores of answers with any number of boxes: precision, recall and F1 by assignment, and average precision.

*Sets.* Answered and true boxes are paired one to one, as many as have an IoU of at least `t`
(`egm.assignment.match_boxes`). With `n` answered, `m` true and `k` pairs, precision is `k / n`, recall `k / m` and F1
`2k / (n + m)`; where nothing matches and nothing is answered all three are 1, where one of both is empty they are 0.
The mean of a figure over questions counts each question once, as gRefCOCO does (arXiv 2308.16182). A failure is no
answer "nothing matches": it scores 0 everywhere.

*Rejection.* Of questions that nothing matches, `N-acc` is the share that are answered so (rejection accuracy), and the
share answered with boxes are false alarms; failures are neither. Of the others, false rejections are those answered
"nothing matches".

*Average precision* is COCO's (pycocotools): boxes of all questions by falling confidence, each taken by the best true
box of its question that is still free and has an IoU of at least `t`; precision made monotone, read at recalls
0, 0.01, ..., 1. Each question stands for a picture; there is one class, and no limit on boxes a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from egm.assignment import match_boxes
from egm.boxes import pairwise_iou
from egm.records import Record
from egm.stats import THRESHOLDS, FloatArray
from egm.types import HIT_IOU


@dataclass(frozen=True, slots=True)
class SetScore:
    """An answer of any number of boxes against the true ones.

    Attributes:
        answered: How many boxes were answered.
        true: How many there are.
        matched: Pairs at each of `THRESHOLDS`.
    """

    answered: int
    true: int
    matched: tuple[int, ...]

    def precision(self, threshold: float = HIT_IOU) -> float:
        """Share of the answered boxes that are true, at one of `THRESHOLDS`."""
        return self._share(threshold, self.answered)

    def recall(self, threshold: float = HIT_IOU) -> float:
        """Share of the true boxes that are answered, at one of `THRESHOLDS`."""
        return self._share(threshold, self.true)

    def f1(self, threshold: float = HIT_IOU) -> float:
        """Harmonic mean of precision and recall, at one of `THRESHOLDS`."""
        return self._share(threshold, (self.answered + self.true) / 2)

    def mean_precision(self) -> float:
        """Precision, as the mean over `THRESHOLDS`."""
        return sum(map(self.precision, THRESHOLDS)) / len(THRESHOLDS)

    def mean_recall(self) -> float:
        """Recall, as the mean over `THRESHOLDS`."""
        return sum(map(self.recall, THRESHOLDS)) / len(THRESHOLDS)

    def mean_f1(self) -> float:
        """F1, as the mean over `THRESHOLDS`."""
        return sum(map(self.f1, THRESHOLDS)) / len(THRESHOLDS)

    def _share(self, threshold: float, count: float) -> float:
        if self.answered == self.true == 0:
            return 1.0
        return self.matched[THRESHOLDS.index(threshold)] / count if count else 0.0


def score_set(answered: Sequence[Sequence[float]], true: Sequence[Sequence[float]]) -> SetScore:
    """Score the boxes of one answer against the true ones.

    Args:
        answered: Boxes `x1, y1, x2, y2` in pixels; none says that nothing matches.
        true: The true boxes; none if nothing matches.

    Example:
        >>> score_set([(0, 0, 10, 10), (0, 0, 10, 10)], [(0, 0, 10, 9)]).f1()
        0.6666666666666666
    """
    ious = pairwise_iou(answered, true)
    return SetScore(len(answered), len(true), tuple(len(match_boxes(ious, level)) for level in THRESHOLDS))


def score_record(record: Record) -> SetScore:
    """Score the boxes of a record; a failure matches nothing, and is no answer "nothing matches"."""
    found = score_set(record.answered, record.true_boxes)
    # As if it had answered with a box that is none of the true ones.
    return SetScore(1, found.true, found.matched) if record.failure is not None else found


def average_precision(
    answers: Sequence[Sequence[Sequence[float]]],
    confidences: Sequence[Sequence[float]],
    truths: Sequence[Sequence[Sequence[float]]],
    thresholds: Sequence[float] = THRESHOLDS,
) -> tuple[float, ...] | None:
    """Average precision at each of some IoUs, as COCO defines it; their mean is COCO's AP.

    Args:
        answers: Boxes of each question.
        confidences: Of each box, the higher the surer; only their order counts.
        truths: True boxes of each question.
        thresholds: The IoUs.

    Returns:
        One value an IoU; None where no question has a true box.

    Example:
        >>> [at_half] = average_precision([[(0, 0, 2, 2)]], [[0.9]], [[(0, 0, 2, 2), (5, 5, 6, 6)]], [0.5])
        >>> round(at_half, 3)  # COCO's 101 points, of which 51 lie at a recall of up to a half
        0.505
    """
    total = sum(map(len, truths))
    if not total:
        return None
    scores: list[float] = []
    right: list[list[bool]] = [[] for _ in thresholds]
    for boxes, sure, true in zip(answers, confidences, truths, strict=True):
        order = np.argsort(-np.asarray(sure, dtype=np.float64), kind="stable")
        scores += [sure[place] for place in order]
        ious = pairwise_iou(boxes, true)[order]
        for found, level in zip(right, thresholds, strict=True):
            found += _taken(ious, level)
    ranked = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    return tuple(_area(np.asarray(found, dtype=bool)[ranked], total) for found in right)


def _taken(ious: FloatArray, level: float) -> list[bool]:
    """Which boxes find a true one that is free, in their order; of equal ones the last, as pycocotools takes it."""
    free = np.ones(ious.shape[1], dtype=bool)
    found = []
    for row in ious:
        fits = np.where(free & (row >= level), row, -1.0)
        place = len(fits) - 1 - int(fits[::-1].argmax()) if len(fits) else -1
        found.append(place >= 0 and fits[place] >= 0)
        if found[-1]:
            free[place] = False
    return found


def _area(right: FloatArray, total: int) -> float:
    """Area under the precision of ranked answers, interpolated at 101 recalls."""
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / total, np.linspace(0.0, 1.0, 101), side="left")
    return float(np.append(precision, 0.0)[np.minimum(places, len(right))].mean())
