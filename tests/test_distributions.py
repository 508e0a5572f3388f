"""The closed forms against scipy, which tests have and the package does not ask for."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from egm.distributions import binomial_p_value, student_quantile


@given(st.floats(0.01, 0.9999), st.integers(1, 30_000))
@example(0.95, 1)
@example(0.95, 2)
@example(0.95, 3)
@example(0.999999, 1)
@example(0.95, 400_000)
@example(0.95, 399_999)
def test_the_quantile_of_student_is_scipys(level: float, freedom: int) -> None:
    assert student_quantile(level, freedom) == pytest.approx(scipy_stats.t.ppf((1 + level) / 2, freedom), rel=1e-10)


@pytest.mark.parametrize(
    ("level", "freedom", "quantile"),
    [
        (0.5, 1, 1.0),  # Cauchy: tan(pi level / 2)
        (0.95, 1, math.tan(0.475 * math.pi)),
        (0.95, 2, 0.95 * math.sqrt(2 / (1 - 0.95**2))),
        (0.95, 4, 2.7764451051977934),  # any table
    ],
)
def test_the_quantile_of_student_by_hand(level: float, freedom: int, quantile: float) -> None:
    assert student_quantile(level, freedom) == pytest.approx(quantile, rel=1e-12)


@given(st.integers(0, 3000), st.integers(0, 3000))
@example(0, 0)
@example(0, 1074)  # the smallest number above 0 that a float holds
@example(0, 1200)
@example(20_000, 20_500)
def test_the_binomial_test_is_scipys(successes: int, failures: int) -> None:
    trials = successes + failures
    expected = scipy_stats.binomtest(successes, trials, 0.5).pvalue if trials else 1.0
    assert binomial_p_value(successes, trials) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert binomial_p_value(failures, trials) == binomial_p_value(successes, trials)


def test_the_binomial_test_by_hand() -> None:
    assert binomial_p_value(1, 4) == 2 * (1 + 4) / 16
    assert binomial_p_value(3, 6) == 1.0
