"""Reliability: whether answers are as often right as their confidence says, in bins of equal width.

The expected calibration error is that of Guo et al., 2017, arXiv 1706.04599.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers whose confidence lies in one range.

    Attributes:
        confidence: Their mean confidence.
        accuracy: Share of them that are right.
        rows: How many they are.
    """

    confidence: float
    accuracy: float
    rows: int


def reliability(confidences: ArrayLike, right: ArrayLike, *, bins: int = 10) -> list[Bin]:
    """Sort answers into bins of equal width over [0, 1], the upper end belonging to a bin; empty ones are left out.

    Args:
        confidences: Shape (N,), in [0, 1].
        right: Shape (N,): whether each answer is right.
        bins: How many bins.

    Raises:
        ValueError: If the shapes differ or a confidence is no share.
    """
    value, truth = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if value.shape != truth.shape or not ((value >= 0) & (value <= 1)).all():
        raise ValueError("confidences must be shares from 0 to 1, one an answer")
    places = np.clip(np.ceil(value * bins) - 1, 0, bins - 1)
    found = []
    for place in range(bins):
        inside = places == place
        if inside.any():
            found.append(Bin(float(value[inside].mean()), float(truth[inside].mean()), int(inside.sum())))
    return found


def calibration_error(confidences: ArrayLike, right: ArrayLike, *, bins: int = 10) -> float:
    """Expected calibration error: mean distance of accuracy from confidence over the bins of `reliability`, by rows.

    Example:
        >>> round(calibration_error([0.9, 0.9, 0.1], [True, False, False]), 3)
        0.3
    """
    found = reliability(confidences, right, bins=bins)
    return sum(item.rows * abs(item.accuracy - item.confidence) for item in found) / sum(item.rows for item in found)
