"""What came out of the arms that are complete, and which are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from egm import stats
from egm.failures import phrase_facts
from egm.journal import Record
from egm.models.costs import cost_model
from egm.report import Comparison, Summary, compare, interval_summary
from egm.report.costs import CURRENCIES, AnswerCosts, answer_costs
from egm.report.figure_points import Point, points_of
from egm.report.runs import Run, load_runs
from egm.report.summary import cluster_numbers, values_of
from egm.reproduce.arms import Arm
from egm.reproduce.folder import ArmFolder
from egm.reproduce.latency import Timing, apart, read_timings
from egm.reproduce.run import ReproductionPlan
from egm.stats import Estimate
from egm.types import mean_if_any


@dataclass(frozen=True)
class Result:
    """One arm that was evaluated.

    Attributes:
        arm: The arm.
        run: Its answers.
        timing: How fast it is; None if it was not timed.
    """

    arm: Arm
    run: Run
    timing: Timing | None

    @property
    def records(self) -> Sequence[Record]:
        """The records of the arm's evaluation."""
        return self.run.records

    @cached_property
    def summary(self) -> Summary:
        """Accuracies with intervals of the arm's records."""
        return interval_summary(self.records)

    @cached_property
    def costs(self) -> AnswerCosts:
        """What each answer took, in tokens, floating-point operations and bytes moved."""
        return answer_costs(self.records, cost_model(self.arm.root.recipe.model.name))

    @property
    def tokens(self) -> float | None:
        """Mean tokens of an answer, of those whose tokens are counted."""
        counts = [record.completion_tokens for record in self.records if record.completion_tokens is not None]
        return mean_if_any(counts)


@dataclass(frozen=True)
class Results:
    """What came out of all arms.

    Attributes:
        plan: What was planned.
        arms: The arms that are evaluated, in the recipe's order.
        missing: What is missing, by arm.
        untimed: Why latencies are not shown, if they are not.
    """

    plan: ReproductionPlan
    arms: Mapping[str, Result]
    missing: Mapping[str, str]
    untimed: str | None

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that were asked."""
        return self.plan.recipe.evaluate.splits

    def points(self) -> list[Point]:
        """One a model for the figures, with the latency of one request at a time."""
        results = list(self.arms.values())
        return [
            replace(
                point,
                milliseconds=None if result.timing is None else 1000 * result.timing.alone["latency"]["mean"],
                parameters=result.arm.parameters,
                concurrency=1,
            )
            for point, result in zip(points_of([result.run for result in results], self.splits), results, strict=True)
        ]

    def comparisons(self) -> list[tuple[str, str, Comparison]]:
        """Pairs that the paper's claims are about, and each ablation beside its own, as far as both are there."""
        roles = self.plan.recipe.roles
        pairs = [(large, small) for large in roles.large for small in (roles.thinking, roles.reinforced)]
        pairs += [(roles.direct, roles.thinking), (roles.thinking, roles.reinforced)]
        pairs += [(arm.against, arm.name) for arm in self.plan.arms.values() if arm.against is not None]
        return [
            (first, second, compare(self.arms[first].records, self.arms[second].records))
            for first, second in pairs
            if first in self.arms and second in self.arms
        ]


def load_results(plan: ReproductionPlan) -> Results:
    """Read the journals of the arms that are evaluated, and the latencies.

    Raises:
        DataError: If a journal is damaged.
    """
    folders = {name: ArmFolder(plan.out, name) for name in plan.arms}
    missing = {
        name: "not trained" if not folder.is_done("train") else "not evaluated"
        for name, folder in folders.items()
        if not folder.is_done("evaluate")
    }
    complete = [name for name in plan.arms if name not in missing]
    timings, _ = read_timings(plan.out)
    untimed = apart(timings) or (None if timings else "nothing is timed")
    if untimed is not None:
        timings = {}
    runs = load_runs([folders[name].evaluate for name in complete], names=complete) if complete else []
    results = {run.name: Result(plan.arms[run.name], run, timings.get(run.name)) for run in runs}
    missing |= {name: "not timed" for name, result in results.items() if result.timing is None and untimed is None}
    return Results(plan, results, missing, untimed)


def complexity_gap(records: Sequence[Record]) -> Estimate:
    """Acc@0.5 on simple phrases minus that on complex ones (`egm.failures`), clustered by picture.

    It is above 0 exactly if complex phrases have a greater share among misses than among all.

    Raises:
        ValueError: If all phrases are simple, or all are complex.
    """
    return _difference(values_of(records)["acc@0.5"], records)


def complexity_gain(before: Sequence[Record], after: Sequence[Record]) -> Estimate:
    """Gain in Acc@0.5 on complex phrases minus that on simple ones, on the items of both, clustered by picture.

    Raises:
        ValueError: If all phrases are simple, or all are complex.
    """
    theirs = {record.key: record for record in after}
    pairs = [(record, theirs[record.key]) for record in before if record.key in theirs]
    mine, other = ([pair[i] for pair in pairs] for i in (0, 1))
    gains = values_of(other)["acc@0.5"] - values_of(mine)["acc@0.5"]
    found = _difference((1 - gains) / 2, mine)
    return replace(found, value=2 * found.value, low=2 * found.low, high=2 * found.high)


def seconds_saved(first: Timing, second: Timing, *, load: bool = False) -> Estimate:
    """Seconds of the first minus those of the second, a mean over the same requests.

    Args:
        first: One arm.
        second: Another, timed in the same run.
        load: Of the requests in batches, which are clusters then: what one waits for, its neighbours wait for too. With
            one batch nothing is known of the spread.
    """
    rows = [each.load if load else each.alone for each in (first, second)]
    a, b = (np.asarray(row["seconds"]) for row in rows)
    clusters = np.arange(len(a)) // (rows[0]["concurrency"] if load else 1)
    scale = float(max(a.max(), b.max()))
    found = stats.paired_difference(b / scale, a / scale, clusters).analytic
    return replace(found, value=scale * found.value, low=scale * found.low, high=scale * found.high)


def cost_saved(first: Result, second: Result, currency: str) -> Estimate:
    """What an answer of the first takes minus what one of the second does, on the same questions, by picture.

    Args:
        first: One arm.
        second: Another.
        currency: One of `egm.report.costs.CURRENCIES`.

    Raises:
        ValueError: If it is not known of all answers of both.
    """
    places = {record.key: number for number, record in enumerate(first.records)}
    if len(places) != len(second.records) or any(record.key not in places for record in second.records):
        raise ValueError("they were not asked the same questions")
    order = [places[record.key] for record in second.records]
    a, b = first.costs.of(currency)[order], second.costs.of(currency)
    for result, values in ((first, a), (second, b)):
        if not np.isfinite(values).all():
            raise ValueError(f"the {CURRENCIES[currency]} of {result.arm.name} are not known of all answers")
    scale = max(float(a.max()), float(b.max()))
    found = stats.paired_difference(b / scale, a / scale, cluster_numbers(second.records), draws=2).analytic
    return replace(found, value=scale * found.value, low=scale * found.low, high=scale * found.high)


def _difference(values: stats.FloatArray, records: Sequence[Record]) -> Estimate:
    """Mean over simple phrases minus mean over complex ones, of values in [0, 1].

    With the values of complex phrases turned round, the mean of the two strata is half of one plus the difference.
    """
    is_complex = np.array([phrase_facts(record.phrase).is_complex for record in records])
    if is_complex.all() or not is_complex.any():
        raise ValueError("there is nothing to compare: all phrases are simple, or all are complex")
    turned = np.where(is_complex, 1 - values, values)
    found = stats.cluster_mean(turned, cluster_numbers(records), strata=is_complex.astype(np.intp))
    return replace(found, value=2 * found.value - 1, low=2 * found.low - 1, high=2 * found.high - 1)
