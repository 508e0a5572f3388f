"""Thresholds certified to cost at most so much accuracy, by Learn then Test with bets, one a picture.

Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then Test" (2021, arXiv 2110.01052): a threshold is safe where the
hypothesis that it costs more than allowed is rejected, and where thresholds are tested in an order that was fixed
beforehand and up to the first that is not rejected, the chance that any of the rejected was true stays at one test's.

The test is a bet against the hypothesis, picture by picture (Waudby-Smith and Ramdas, 2024, arXiv 2010.09686). With X
of a picture the sum over its questions of the loss minus what is allowed, the hypothesis says E[X] >= 0. Each stake s
>= 0 is chosen from the pictures before, and so small that 1 - s X is never below 0. The capital, the product of 1 - s
X so far, then has an expectation of at most 1, and by Ville's inequality it ever reaches 1 / delta with a chance of
at most delta. Nothing is assumed of how questions about one picture go together, nor of any distribution: only that
pictures are drawn independently of each other from one population, and that none has more questions than those here
have.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from egm.stats import FloatArray, IntArray

HIGHEST: Final = 0.95
"""Share of what may be staked that is staked at most."""


def picture_sums(values: FloatArray, pictures: IntArray) -> FloatArray:
    """Add the rows of each picture up.

    Args:
        values: Shape (rows, thresholds).
        pictures: Shape (rows,): whole numbers, one a picture.

    Returns:
        Shape (pictures, thresholds).
    """
    order = np.argsort(pictures, kind="stable")
    starts = np.flatnonzero(np.diff(pictures[order], prepend=-1))
    sums: FloatArray = np.add.reduceat(values[order], starts, axis=0)
    return sums


def p_values(excess: FloatArray, before: FloatArray, most: float) -> FloatArray:
    """Test of each threshold that it costs more than is allowed; see the module's text.

    Args:
        excess: Shape (pictures, thresholds): X of each picture.
        before: Shape (others, thresholds): those of pictures that the first stakes are chosen from.
        most: The greatest value that X can have.

    Returns:
        Shape (thresholds,): at most 1; small where the threshold is safe.
    """
    seen = np.concatenate([before, excess[:-1]])
    count = np.arange(1, len(seen) + 1)[:, None]
    # A picture that loses as much as any can is added, so that few pictures do not tempt to stake all.
    mean = (np.cumsum(seen, axis=0) + most) / (count + 1)
    square = (np.cumsum(np.square(seen), axis=0) + most**2) / (count + 1)
    stakes = np.clip(-mean / square, 0.0, HIGHEST / most)[len(before) - 1 :]
    highest = np.log1p(-stakes * excess).cumsum(axis=0).max(axis=0, initial=0.0)
    return np.asarray(np.exp(-highest))


def certified(p: FloatArray, delta: float) -> int:
    """Return how many thresholds are safe, counted from the first, with all before them: see the module's text."""
    unsafe = np.flatnonzero(p > delta)
    return int(unsafe[0]) if len(unsafe) else len(p)
