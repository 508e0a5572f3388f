"""Estimates with honest intervals: means over samples that come in clusters, and two models on the same samples.

About seven phrases of RefCOCO share a picture, and what makes one hard makes the others hard, so rows are not
independent: every standard error and every draw here is by cluster (the picture), never by row.

*Mean and interval.* Of rows `i` with value `y_i`, cluster `g` and stratum `s` (a split), the mean is
`m = sum_i w_i y_i`, with `w_i = 1/n` (pooled) or `w_i = 1/(S n_s)` (average of the `S` splits). Its linearised
variance is `V = G/(G-1) sum_g u_g^2` with `u_g = sum_{i in g} w_i (y_i - m_s)` (Liang and Zeger, 1986, Biometrika 73;
Miller, 2024, arXiv 2411.00640 for evaluations). A picture that occurs in two splits is one cluster. The interval is
`m +- t sqrt(V)` with `t` of `G - 1` degrees of freedom.

*Accuracies* (values 0 and 1 only) take Wilson's interval (1927) on the effective sample size `n* = m(1-m)/V`, at most
the number of rows, with the same `t` in place of `z` (Korn and Graubard, 1998; Franco et al., 2019, J. Survey Stat.
Methodol. 7): it stays within [0, 1] and keeps its coverage near the ends. Where all rows agree, `V` is 0 and says
nothing: then `n* = G`, as if the rows of a picture stood and fell together, which errs on the wide side.

*Bootstrap.* Draws of `G` clusters with replacement, as multinomial weights on per-cluster sums; percentile intervals.
It is the check of the analytic interval, and serves what has no formula. Where all rows agree it has no width, and with
fewer than some 200 clusters it is a little short: quote the analytic one there.

*Ranking.* `auroc` is the Mann-Whitney probability that a right answer has the greater score, ties counting half; its
interval resamples clusters, as AUROC is no mean of rows.

*One cluster* carries no information on spread: the interval is the whole range, and the standard error is None.

*Differences* have one p-value, that of the analytic interval: it is at most `1 - level` just where that interval leaves
0 out. It is at least `2^(1-G)`, the chance that all `G` clusters lie on one side where either is as likely. With so
few clusters that this alone is more than `1 - level` (at 95 % fewer than six), nothing is decided, however alike they
are: both intervals are the whole range, and there is no p-value (`mean_difference` alone leaves them as they are).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from egm.distributions import binomial_p_value, student_p_value, student_quantile
from egm.types import HIT_IOU

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""0.5, 0.55, ..., 0.95: what mAcc@0.5:0.95 averages over."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        value: The mean.
        low: Lower end of the interval.
        high: Upper end of the interval.
        standard_error: Clustered standard error; None where there is only one cluster.
        rows: How many values.
        clusters: How many clusters.
    """

    value: float
    low: float
    high: float
    standard_error: float | None
    rows: int
    clusters: int

    def contains(self, value: float) -> bool:
        """Tell whether a value lies in the interval, ends included."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two yes-no results on the same rows (McNemar, 1947).

    Attributes:
        only_a: Rows that only the first got.
        only_b: Rows that only the second got.
        both: Rows that both got.
        neither: Rows that neither got.
        p_value: Exact and two-sided: binomial with 1/2 over the rows where they differ.
    """

    only_a: int
    only_b: int
    both: int
    neither: int
    p_value: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Second minus first, on the same rows.

    Attributes:
        analytic: Mean difference, interval by the clustered standard error.
        bootstrap: Mean difference, interval by resampling clusters.
        p_value: Two-sided, by Student's t as the analytic interval, which it never contradicts; None where there are
            too few clusters to decide (`too_few`), and the intervals are the whole range.
    """

    analytic: Estimate
    bootstrap: Estimate
    p_value: float | None

    @property
    def disagree(self) -> bool:
        """Whether one interval holds 0 and the other does not."""
        return self.analytic.contains(0.0) != self.bootstrap.contains(0.0)


def too_few(clusters: int, level: float = 0.95) -> bool:
    """Tell whether so few clusters decide nothing: that all lie on one side is then likelier by chance than allowed.

    Example:
        >>> too_few(5), too_few(6)
        (True, False)
    """
    return 2.0 ** (1 - clusters) > 1 - level


def codes(labels: Sequence[Hashable]) -> IntArray:
    """Number labels 0, 1, ... in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.intp)


def picture_numbers(pictures: Sequence[str]) -> IntArray:
    """Number pictures by their names, for intervals that are clustered by picture; one without a name is its own."""
    return codes([name or ("row", number) for number, name in enumerate(pictures)])


def hits(ious: ArrayLike, threshold: float = HIT_IOU, *, strict: bool = False) -> FloatArray:
    """1 where a box counts as right, `iou >= threshold`, or `iou > threshold` if strict; else 0."""
    array = np.asarray(ious, dtype=np.float64)
    return np.asarray(array > threshold if strict else array >= threshold, dtype=np.float64)


def mean_hits(ious: ArrayLike) -> FloatArray:
    """Share of the ten `THRESHOLDS` that each IoU reaches: its mean over rows is mAcc@0.5:0.95 (Ref-L4, 2406.16866)."""
    array = np.asarray(ious, dtype=np.float64)
    shares: FloatArray = (array[:, None] >= np.array(THRESHOLDS)).mean(axis=1, dtype=np.float64)
    return shares


def cluster_mean(
    values: ArrayLike, clusters: ArrayLike, *, strata: ArrayLike | None = None, level: float = 0.95
) -> Estimate:
    """Mean of values in [0, 1] with the analytic interval.

    Args:
        values: Shape (N,), N > 0.
        clusters: Shape (N,): whole numbers, one a cluster.
        strata: Shape (N,): whole numbers, one a split; the mean of the splits' means is taken. None pools.
        level: Of the interval.

    Example:
        >>> estimate = cluster_mean([1, 1, 0, 1, 1, 0], [0, 0, 1, 1, 2, 2])
        >>> round(estimate.value, 3), round(estimate.low, 3), round(estimate.high, 3)
        (0.667, 0.112, 0.969)
    """
    value, error, rows, count = _linearised(values, clusters, strata)
    if error is None:
        return Estimate(value, 0.0, 1.0, None, rows, count)
    binary = bool(np.isin(np.asarray(values), (0.0, 1.0)).all())
    quantile = student_quantile(level, count - 1)
    if binary:
        low, high = _wilson(value, error, rows, count, quantile)
    else:
        low, high = max(0.0, value - quantile * error), min(1.0, value + quantile * error)
    return Estimate(value, low, high, error, rows, count)


def cluster_bootstrap(
    values: ArrayLike,
    clusters: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean with the percentile interval over draws of whole clusters; arguments as in `cluster_mean`.

    The standard error is the standard deviation of the draws. The same seed gives the same interval.
    """
    value, _, rows, count = _linearised(values, clusters, strata)
    if count < 2:
        return Estimate(value, 0.0, 1.0, None, rows, count)
    means = bootstrap_means(values, clusters, strata=strata, draws=draws, seed=seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), float(means.std(ddof=1)), rows, count)


def bootstrap_means(
    values: ArrayLike, clusters: ArrayLike, *, strata: ArrayLike | None = None, draws: int = 2000, seed: int = 0
) -> FloatArray:
    """Means of `draws` resamples of whole clusters, shape (draws,)."""
    value, cluster, stratum = _checked(values, clusters, strata)
    groups, splits = int(cluster.max()) + 1, int(stratum.max()) + 1
    table = np.zeros((groups, 2 * splits))
    np.add.at(table, (cluster, stratum), value)
    np.add.at(table, (cluster, splits + stratum), 1.0)
    random = np.random.default_rng(seed)
    shares = np.full(groups, 1.0 / groups)
    result = np.empty(draws)
    step = max(1, 4_000_000 // groups)  # weights of one block stay within tens of megabytes
    for start in range(0, draws, step):
        weights = random.multinomial(groups, shares, size=min(step, draws - start)).astype(np.float64)
        sums = weights @ table
        counts = sums[:, splits:]
        # A split that a draw misses altogether is left out of that draw's average.
        means = np.divide(sums[:, :splits], counts, out=np.full(counts.shape, np.nan), where=counts > 0)
        result[start : start + len(weights)] = np.nanmean(means, axis=1)
    return result


def auroc(
    scores: ArrayLike,
    right: ArrayLike,
    clusters: ArrayLike,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Area under the ROC curve: how well scores tell right answers from wrong ones; 0.5 is chance.

    Args:
        scores: Shape (N,); only their order counts.
        right: Shape (N,): whether each answer is right; both kinds must occur.
        clusters: Shape (N,): whole numbers, one a cluster.
        level: Of the interval.
        draws: Of the bootstrap; one that holds only one kind is left out.
        seed: Of the bootstrap.

    Raises:
        ValueError: If all answers are right, or all are wrong.
    """
    value, cluster, _ = _checked(scores, clusters, None)
    truth = np.asarray(right, dtype=bool)
    if truth.shape != value.shape or truth.all() or not truth.any():
        raise ValueError("AUROC compares right answers with wrong ones: give some of both, one a score")
    order = np.argsort(value, kind="stable")
    ranked, truth, cluster = value[order], truth[order], cluster[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(ranked) > 0]))  # of each run of equal scores
    count = int(cluster.max()) + 1

    def area(weights: FloatArray) -> float:
        up = np.add.reduceat(np.where(truth, weights, 0.0), starts)
        down = np.add.reduceat(np.where(truth, 0.0, weights), starts)
        pairs = up.sum() * down.sum()
        below = np.cumsum(down) - down
        return float((up * (below + down / 2)).sum() / pairs) if pairs > 0 else float("nan")

    point = area(np.ones(len(ranked)))
    if count < 2:
        return Estimate(point, 0.0, 1.0, None, len(ranked), count)
    random = np.random.default_rng(seed)
    shares = np.full(count, 1.0 / count)
    drawn = np.array([area(random.multinomial(count, shares)[cluster].astype(np.float64)) for _ in range(draws)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(point, float(low), float(high), float(drawn.std(ddof=1)), len(ranked), count)


def mcnemar(a: ArrayLike, b: ArrayLike) -> McNemar:
    """Exact McNemar test of two yes-no results on the same rows.

    It takes rows for independent; with several rows a picture, read the clustered `paired_difference` beside it.

    Args:
        a: Shape (N,): what the first got.
        b: Shape (N,): what the second got.

    Example:
        >>> test = mcnemar([1, 1, 0, 0, 1], [1, 0, 1, 1, 1])
        >>> test.only_a, test.only_b, test.p_value
        (1, 2, 1.0)
    """
    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"paired results must have one shape, not {first.shape} and {second.shape}")
    only_a, only_b = int((first & ~second).sum()), int((~first & second).sum())
    p_value = binomial_p_value(only_a, only_a + only_b)
    return McNemar(only_a, only_b, int((first & second).sum()), int((~first & ~second).sum()), p_value)


def mean_difference(
    a: ArrayLike, b: ArrayLike, clusters: ArrayLike, *, strata: ArrayLike | None = None, level: float = 0.95
) -> Estimate:
    """Mean of `b - a` with the analytic interval alone, arguments as in `paired_difference`.

    It takes few clusters at their word, as seconds and tokens may be; yes and no may not, as they are often all alike.
    """
    gain = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    value, error, rows, count = _linearised(gain, clusters, strata)
    if error is None:
        return Estimate(value, -1.0, 1.0, None, rows, count)
    reach = student_quantile(level, count - 1) * error
    return Estimate(value, max(-1.0, value - reach), min(1.0, value + reach), error, rows, count)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Mean of `b - a` over the same rows, with intervals and a p-value by cluster.

    Args:
        a: Shape (N,): the first's values in [0, 1], such as IoUs or hits.
        b: Shape (N,): the second's.
        clusters: Shape (N,): whole numbers, one a cluster.
        strata: Shape (N,): whole numbers, one a split; None pools.
        level: Of the intervals.
        draws: Of the bootstrap.
        seed: Of the bootstrap.

    Example:
        >>> found = paired_difference([0, 1, 0, 1, 1, 0], [1, 1, 0, 1, 1, 1], range(6))
        >>> round(found.analytic.value, 2), round(found.analytic.low, 2), round(found.p_value, 2)
        (0.33, -0.21, 0.17)
    """
    analytic = mean_difference(a, b, clusters, strata=strata, level=level)
    value, error, rows, count = analytic.value, analytic.standard_error, analytic.rows, analytic.clusters
    if error is None or too_few(count, level):
        unknown = Estimate(value, -1.0, 1.0, None, rows, count)
        return PairedDifference(unknown, unknown, None)
    gain = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    means = bootstrap_means(gain, clusters, strata=strata, draws=draws, seed=seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    bootstrap = Estimate(value, float(low), float(high), float(means.std(ddof=1)), rows, count)
    t = value / error if error else math.copysign(math.inf, value) if value else 0.0
    return PairedDifference(analytic, bootstrap, max(student_p_value(t, count - 1), 2.0 ** (1 - count)))


def _linearised(
    values: ArrayLike, clusters: ArrayLike, strata: ArrayLike | None
) -> tuple[float, float | None, int, int]:
    """Mean, clustered standard error (None with one cluster), rows, clusters."""
    value, cluster, stratum = _checked(values, clusters, strata)
    sizes = np.bincount(stratum).astype(np.float64)
    means = np.bincount(stratum, weights=value) / sizes
    parts = np.bincount(cluster, weights=(value - means[stratum]) / (len(sizes) * sizes[stratum]))
    count = len(parts)
    error = float(np.sqrt(count / (count - 1) * np.square(parts).sum())) if count > 1 else None
    return float(means.mean()), error, len(value), count


def _wilson(mean: float, error: float, rows: int, clusters: int, quantile: float) -> tuple[float, float]:
    """Wilson's interval on the effective sample size."""
    spread = mean * (1 - mean)
    effective = float(clusters) if spread <= 0 else float(rows)
    if error > 0 and spread > 0:
        effective = min(effective, spread / error**2)
    share = quantile**2 / effective
    middle = (mean + share / 2) / (1 + share)
    reach = quantile / (1 + share) * np.sqrt(spread / effective + share / (4 * effective))
    # Rounding must not leave the mean itself out where it is 0 or 1.
    return max(0.0, min(mean, float(middle - reach))), min(1.0, max(mean, float(middle + reach)))


def _checked(values: ArrayLike, clusters: ArrayLike, strata: ArrayLike | None) -> tuple[FloatArray, IntArray, IntArray]:
    """Arrays of one length, clusters and strata numbered without gaps."""
    value = np.asarray(values, dtype=np.float64)
    cluster = np.asarray(clusters)
    stratum = np.zeros(len(value), dtype=np.intp) if strata is None else np.asarray(strata)
    if not len(value) or not value.shape == cluster.shape == stratum.shape:
        raise ValueError(f"rows, clusters and strata must match: {value.shape}, {cluster.shape}, {stratum.shape}")
    if not np.isfinite(value).all():
        raise ValueError("values must be finite: a row without a box scores 0")
    return value, np.unique(cluster, return_inverse=True)[1], np.unique(stratum, return_inverse=True)[1]
