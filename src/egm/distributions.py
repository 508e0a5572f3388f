"""Student's t and the binomial distribution in closed form, as far as intervals and paired tests ask for them."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np


def student_quantile(level: float, freedom: int) -> float:
    """Return the `t` with `P(-t <= T <= t) = level` of Student's t distribution, by Newton's method.

    The probability between `-t` and `t` is a finite sum for a whole number of degrees of freedom (Abramowitz and
    Stegun, 1964, 26.7.3 and 26.7.4). All its terms are positive, so nothing cancels.

    Args:
        level: Within (0, 1).
        freedom: Degrees of freedom, at least 1.
    """
    t = NormalDist().inv_cdf((1 + level) / 2)  # too small, and the sum is concave: each step comes closer from below
    log_peak = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    for _ in range(100):
        density = math.exp(log_peak - (freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = (level - _student_between(t, freedom)) / (2 * density)
        t += step
        if abs(step) <= 1e-14 * t:
            break
    return t


def _student_between(t: float, freedom: int) -> float:
    """Return `P(-t <= T <= t)`."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom % 2:
        even = np.arange(2, freedom - 2, 2)  # cos + 2/3 cos^3 + 2/3 4/5 cos^5 + ...
        terms = cosine * (1 + np.cumprod(cosine**2 * even / (even + 1)).sum()) if freedom > 1 else 0.0
        return float(2 / math.pi * (angle + sine * terms))
    odd = np.arange(1, freedom - 2, 2)  # 1 + 1/2 cos^2 + 1/2 3/4 cos^4 + ...
    return float(sine * (1 + np.cumprod(cosine**2 * odd / (odd + 1)).sum()))


def student_p_value(t: float, freedom: int) -> float:
    """Two-sided p-value of a `t` with so many degrees of freedom: `P(|T| >= |t|)`."""
    return max(0.0, 1 - _student_between(abs(t), freedom))


def binomial_p_value(successes: int, trials: int) -> float:
    """Two-sided p-value of the exact binomial test with probability 1/2; the sums are of whole numbers."""
    tail = term = 1  # of 2^trials equally likely outcomes: those with no success, then with one, ...
    for count in range(min(successes, trials - successes)):
        term = term * (trials - count) // (count + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << trials))
