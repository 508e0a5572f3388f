"""Statistics against hand-computed cases, against each other, and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egm import stats


def test_the_mean_and_its_standard_error_by_hand() -> None:
    # Two pictures of two rows: the mean is 0.5, the pictures' sums of residuals are 1 and -1, so
    # V = 2/1 * ((1/4)^2 + (1/4)^2) = 1/4.
    estimate = stats.cluster_mean([1, 1, 0, 0], [0, 0, 1, 1])
    assert (estimate.value, estimate.rows, estimate.clusters) == (0.5, 4, 2)
    assert estimate.standard_error == pytest.approx(0.5)


def test_unequal_pictures_by_hand() -> None:
    # Mean 0.4; residual sums -0.2 - 0.4 = -0.8 + ... per picture: (1, 0, 0) -> -0.2, (1, 0) -> 0.2; G = 2.
    estimate = stats.cluster_mean([1, 0, 0, 1, 0], [0, 0, 0, 1, 1])
    assert estimate.value == pytest.approx(0.4)
    assert estimate.standard_error == pytest.approx(math.sqrt(2 * (0.2**2 + 0.2**2)) / 5)


def test_one_row_a_picture_is_the_textbook_standard_error() -> None:
    values = np.random.default_rng(0).random(50)
    estimate = stats.cluster_mean(values, np.arange(50))
    assert estimate.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(50))
    # Student's t with 49 degrees of freedom.
    assert estimate.high - estimate.value == pytest.approx(2.009575 * values.std(ddof=1) / math.sqrt(50), rel=1e-5)


def test_the_average_of_splits_weighs_splits_alike() -> None:
    # Split 0: three rows right of three; split 1: one row wrong. Pooled 3/4, averaged 1/2.
    values, clusters, strata = [1, 1, 1, 0], [0, 1, 2, 3], [0, 0, 0, 1]
    assert stats.cluster_mean(values, clusters).value == 0.75
    assert stats.cluster_mean(values, clusters, strata=strata).value == 0.5
    assert stats.cluster_bootstrap(values, clusters, strata=strata).value == 0.5


def test_a_picture_in_two_splits_is_one_cluster() -> None:
    # Each picture stands in both splits with the same value: the splits' errors add instead of averaging out.
    values = [1, 0, 0, 1, 0, 0]
    together = stats.cluster_mean(values, [0, 1, 2, 0, 1, 2], strata=[0, 0, 0, 1, 1, 1])
    apart = stats.cluster_mean(values, [0, 1, 2, 3, 4, 5], strata=[0, 0, 0, 1, 1, 1])
    # u = (2/3, -1/3, -1/3) / 3: V = 3/2 * (6/9) / 9 = 1/9. Apart: six of half that size, V = 6/5 * 2 * (6/9) / 36.
    assert together.standard_error == pytest.approx(1 / 3)
    assert apart.standard_error == pytest.approx(math.sqrt(6 / 5 * 2 * 6 / 9 / 36))


def test_an_accuracy_takes_wilsons_interval() -> None:
    # 8 of 10 independent rows: Wilson with n* = spread / V = 0.16 / (0.16 / 9) = 9 and t(9) = 2.262157.
    estimate = stats.cluster_mean([1] * 8 + [0] * 2, np.arange(10))
    share = 2.262157**2 / 9
    middle, reach = (0.8 + share / 2) / (1 + share), 2.262157 / (1 + share) * math.sqrt(0.16 / 9 + share / 36)
    assert (estimate.low, estimate.high) == pytest.approx((middle - reach, middle + reach), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_alike_still_has_an_interval_by_pictures(value: float) -> None:
    estimate = stats.cluster_mean([value] * 40, np.repeat(np.arange(10), 4))
    width = estimate.high - estimate.low
    # Wilson at the end of the range with n* = 10 pictures, not 40 rows: t^2 / (10 + t^2) with t(9) = 2.262157.
    assert width == pytest.approx(2.262157**2 / (10 + 2.262157**2), abs=1e-6)
    assert estimate.contains(value)


def test_an_accuracy_never_rests_on_more_than_its_rows() -> None:
    # Ten pictures with one hit and one miss each, and an eleventh with two hits: they differ less than by chance.
    # V = 11/10 (10 (1/11)^2 + (10/11)^2) / 22^2 = 1/22^2, so m (1 - m) / V = 120, of 22 rows.
    values, pictures = [1, 0] * 10 + [1, 1], np.repeat(np.arange(11), 2)
    estimate = stats.cluster_mean(values, pictures)
    mean, t = 12 / 22, 2.228139  # of 10 degrees of freedom
    assert estimate.standard_error == pytest.approx(1 / 22)
    middle = (mean + t**2 / 44) / (1 + t**2 / 22)
    reach = t / (1 + t**2 / 22) * math.sqrt(mean * (1 - mean) / 22 + t**2 / (4 * 22**2))
    assert (estimate.low, estimate.high) == pytest.approx((middle - reach, middle + reach), abs=1e-6)


def test_one_picture_says_nothing_of_the_spread() -> None:
    for estimate in (stats.cluster_mean([1, 0], [7, 7]), stats.cluster_bootstrap([1, 0], [7, 7])):
        assert (estimate.value, estimate.low, estimate.high, estimate.standard_error) == (0.5, 0.0, 1.0, None)
    paired = stats.paired_difference([1, 0], [0, 0], [7, 7])
    assert (paired.analytic.low, paired.analytic.high, paired.p_value) == (-1.0, 1.0, None)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), min_size=1, max_size=30),
    st.booleans(),
)
def test_intervals_hold_their_mean_and_stay_in_range(rows: list[tuple[int, float]], binary: bool) -> None:
    values = [float(value > 0.5) if binary else value for _, value in rows]
    estimate = stats.cluster_mean(values, [cluster for cluster, _ in rows])
    assert 0 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1


def clustered(random: np.random.Generator, pictures: int, mean: float, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Hits whose probability varies by picture (a beta distribution), with one to twelve rows a picture."""
    sizes = random.integers(1, 13, pictures)
    clusters = np.repeat(np.arange(pictures), sizes)
    chances = random.beta(mean * spread, (1 - mean) * spread, pictures)
    return (random.random(len(clusters)) < chances[clusters]).astype(float), clusters


@pytest.mark.parametrize(("pictures", "mean"), [(60, 0.5), (150, 0.9), (500, 0.9)])
def test_the_analytic_interval_covers_as_often_as_it_says(pictures: int, mean: float) -> None:
    random = np.random.default_rng(pictures)
    trials = 2000
    covered = naive = 0
    for _ in range(trials):
        values, clusters = clustered(random, pictures, mean, 2.0)
        covered += stats.cluster_mean(values, clusters).contains(mean)
        naive += stats.cluster_mean(values, np.arange(len(values))).contains(mean)
    assert 0.93 <= covered / trials <= 0.97
    # What ignoring the pictures would claim: the reason for all of this.
    assert naive / trials < 0.85


def test_the_interval_of_a_mean_iou_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    trials, covered = 2000, 0
    for _ in range(trials):
        hits, clusters = clustered(random, 100, 0.8, 2.0)
        values = hits * random.uniform(0.6, 1.0, len(hits))
        covered += stats.cluster_mean(values, clusters).contains(0.8 * 0.8)
    assert 0.93 <= covered / trials <= 0.97


def test_the_bootstrap_covers_as_often_as_it_says() -> None:
    # With fewer pictures percentile intervals are a little short (92 to 93 % at 150); RefCOCO's splits have 750.
    random = np.random.default_rng(6)
    trials, covered = 400, 0
    for trial in range(trials):
        values, clusters = clustered(random, 400, 0.8, 2.0)
        covered += stats.cluster_bootstrap(values, clusters, draws=400, seed=trial).contains(0.8)
    assert 0.93 <= covered / trials <= 0.97


@pytest.mark.parametrize("strata", [False, True])
def test_analytic_and_bootstrap_agree(strata: bool) -> None:
    values, clusters = clustered(np.random.default_rng(7), 1500, 0.88, 2.0)
    groups = clusters % 3 if strata else None
    analytic = stats.cluster_mean(values, clusters, strata=groups)
    bootstrap = stats.cluster_bootstrap(values, clusters, strata=groups)
    assert bootstrap.value == analytic.value
    assert analytic.standard_error is not None
    assert bootstrap.standard_error == pytest.approx(analytic.standard_error, rel=0.06)
    assert (bootstrap.low, bootstrap.high) == pytest.approx((analytic.low, analytic.high), abs=0.002)


def test_the_bootstrap_repeats_from_its_seed_in_blocks_and_whole() -> None:
    values, clusters = clustered(np.random.default_rng(8), 3000, 0.9, 2.0)
    first = stats.bootstrap_means(values, clusters, draws=1500, seed=3)  # more than one block
    assert (first == stats.bootstrap_means(values, clusters, draws=1500, seed=3)).all()
    assert not (first == stats.bootstrap_means(values, clusters, draws=1500, seed=4)).all()
    assert len(first) == 1500
    assert np.isfinite(first).all()


def test_a_draw_that_misses_a_split_averages_the_others() -> None:
    means = stats.bootstrap_means([1, 0], [0, 1], strata=[0, 1], draws=200)
    assert set(means.tolist()) == {0.0, 0.5, 1.0}


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    # 2 * sum of C(n, k) / 2^n by hand: 2 * (1 + 10) / 1024; 2 / 32; and no difference at all.
    [(1, 9, 22 / 1024), (5, 0, 2 / 32), (3, 3, 1.0), (0, 0, 1.0)],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, p_value: float) -> None:
    a = [1] * only_a + [0] * only_b + [1] * 4 + [0] * 2
    b = [0] * only_a + [1] * only_b + [1] * 4 + [0] * 2
    result = stats.mcnemar(a, b)
    assert (result.only_a, result.only_b, result.both, result.neither) == (only_a, only_b, 4, 2)
    assert result.p_value == pytest.approx(p_value)


def test_a_paired_difference_by_hand() -> None:
    # Gains 0.2, 0.4 in turn in six pictures: mean 0.3, residuals 0.1, V = 6/5 * 6 * (0.1 / 6)^2 = 0.002.
    paired = stats.paired_difference([0.1, 0.2] * 3, [0.3, 0.6] * 3, range(6))
    assert paired.analytic.value == pytest.approx(0.3)
    assert paired.analytic.standard_error == pytest.approx(math.sqrt(0.002))
    assert paired.analytic.low == pytest.approx(0.3 - 2.570582 * math.sqrt(0.002))  # t of 5 degrees of freedom
    # t = 6.708 of 5 degrees of freedom has p 0.0011, and that six pictures lie on one side has 2 / 2^6.
    assert paired.p_value == pytest.approx(2 / 2**6)
    assert 0.2 <= paired.bootstrap.low < 0.3 < paired.bootstrap.high <= 0.4


@pytest.mark.parametrize("pictures", [1, 2, 5])
def test_few_pictures_decide_nothing_however_alike_they_are(pictures: int) -> None:
    paired = stats.paired_difference([0] * 3 * pictures, [1] * 3 * pictures, list(range(pictures)) * 3)
    assert (paired.analytic.value, paired.p_value, paired.disagree) == (1.0, None, False)
    assert (paired.analytic.low, paired.analytic.high) == (paired.bootstrap.low, paired.bootstrap.high) == (-1.0, 1.0)


@given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=30) | st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=2),
    st.sampled_from([0.8, 0.95, 0.99]),
)
def test_a_p_value_never_contradicts_its_interval(gains: list[float], level: float) -> None:
    paired = stats.paired_difference([0.0] * len(gains), gains, range(len(gains)), level=level, draws=100)
    if paired.p_value is None:
        assert stats.too_few(len(gains), level)
        assert paired.analytic.contains(0.0)
    elif abs(paired.p_value - (1 - level)) > 1e-9:
        assert (paired.p_value < 1 - level) == (not paired.analytic.contains(0.0))


def test_a_difference_swapped_changes_its_sign_only() -> None:
    random = np.random.default_rng(9)
    a, clusters = clustered(random, 80, 0.8, 2.0)
    b = np.where(random.random(len(a)) < 0.9, a, 1 - a)
    forth, back = stats.paired_difference(a, b, clusters), stats.paired_difference(b, a, clusters)
    assert forth.analytic.value == pytest.approx(-back.analytic.value)
    assert forth.analytic.standard_error == pytest.approx(back.analytic.standard_error)
    assert forth.p_value == back.p_value


def test_equal_models_are_told_apart_about_one_time_in_twenty() -> None:
    random = np.random.default_rng(10)
    trials, analytic, p_values = 400, 0, 0
    for trial in range(trials):
        sizes = random.integers(1, 13, 100)
        clusters = np.repeat(np.arange(100), sizes)
        chance = random.beta(1.6, 0.4, 100)[clusters]
        a, b = ((random.random(len(clusters)) < chance).astype(float) for _ in range(2))
        paired = stats.paired_difference(a, b, clusters, draws=400, seed=trial)
        analytic += not paired.analytic.contains(0.0)
        p_values += paired.p_value < 0.05
    assert 0.02 <= analytic / trials <= 0.085
    assert 0.02 <= p_values / trials <= 0.085


def test_thresholds() -> None:
    assert stats.hits([0.5, 0.49, 0.51]).tolist() == [1, 0, 1]
    assert stats.hits([0.5, 0.49, 0.51], strict=True).tolist() == [0, 0, 1]
    # 0.7 reaches 0.5, 0.55, 0.6, 0.65, 0.7; 0.95 reaches all ten.
    assert stats.mean_hits([0.7, 0.95, 0.49]) == pytest.approx([0.5, 1.0, 0.0])


def test_what_is_no_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        stats.cluster_mean([1.0, float("nan")], [0, 1])
    with pytest.raises(ValueError, match="must match"):
        stats.cluster_mean([1.0], [0, 1])
    with pytest.raises(ValueError, match="must match"):
        stats.cluster_mean([], [])
    with pytest.raises(ValueError, match="one shape"):
        stats.mcnemar([1], [1, 0])


def test_labels_are_numbered_as_they_come() -> None:
    assert stats.codes(["b", "a", "b"]).tolist() == [0, 1, 0]
    assert stats.picture_numbers(["b", "", "b", ""]).tolist() == [0, 1, 0, 2]


def test_auroc_counts_pairs() -> None:
    # Right ones at 3, 2, 1; wrong ones at 2, 0. Of 6 pairs the right one is above in 4 and level in 1.
    found = stats.auroc([3, 2, 1, 2, 0], [1, 1, 1, 0, 0], [0, 1, 2, 3, 4])
    assert found.value == pytest.approx(4.5 / 6)
    assert (found.rows, found.clusters) == (5, 5)
    assert found.low <= found.value <= found.high
    assert stats.auroc([1, 2, 3, 4], [0, 0, 1, 1], [0, 0, 1, 1]).value == 1.0
    assert stats.auroc([1, 1, 1, 1], [0, 1, 0, 1], [0, 1, 2, 3]).value == 0.5
    alone = stats.auroc([1, 2], [0, 1], [7, 7])
    assert (alone.low, alone.high, alone.standard_error) == (0.0, 1.0, None)


def test_auroc_is_clustered_and_drawn_from_its_seed() -> None:
    random = np.random.default_rng(3)
    right = random.random(60) < 0.5
    scores = right + random.normal(size=60)
    rows = stats.auroc(np.repeat(scores, 5), np.repeat(right, 5), np.arange(300), draws=400)
    whole = stats.auroc(np.repeat(scores, 5), np.repeat(right, 5), np.repeat(np.arange(60), 5), draws=400)
    once = stats.auroc(scores, right, np.arange(60), draws=400)
    assert whole.value == pytest.approx(once.value)
    assert (whole.low, whole.high) == pytest.approx((once.low, once.high))  # five copies say no more than one
    assert rows.high - rows.low < 0.7 * (whole.high - whole.low)
    assert stats.auroc(scores, right, np.arange(60), draws=400) == once


def test_auroc_needs_both_kinds() -> None:
    with pytest.raises(ValueError, match="some of both"):
        stats.auroc([1, 2], [1, 1], [0, 1])
