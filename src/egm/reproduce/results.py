"""What came out of the arms that are complete, and which are not.

An arm that was trained with several seeds counts as one that answers each question with the mean over its trainings.
Intervals are by picture, and say nothing of what another training would give; so each training is there by itself too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, product
from typing import Any

import numpy as np

from egm import stats
from egm.failures import phrase_facts
from egm.journal import Record
from egm.models.costs import cost_model
from egm.report import Summary, interval_summary
from egm.report.costs import CURRENCIES, AnswerCosts, answer_costs
from egm.report.figure_points import Point, points_of
from egm.report.runs import Run, load_runs
from egm.report.summary import cluster_numbers, hits_of
from egm.reproduce.arms import Arm
from egm.reproduce.folder import ArmFolder
from egm.reproduce.latency import Timing, apart, read_timings
from egm.reproduce.run import ReproductionPlan
from egm.stats import Estimate, FloatArray, IntArray, McNemar, PairedDifference
from egm.types import mean_if_any


@dataclass(frozen=True)
class Result:
    """An arm as far as it was evaluated, or one training of it.

    Attributes:
        arm: The arm.
        runs: The answers of each training by its seed; the seed is None where the arm names none.
        timings: How fast each is, of those that were timed.
    """

    arm: Arm
    runs: Mapping[int | None, Run]
    timings: Mapping[int | None, Timing]

    @property
    def title(self) -> str:
        """The arm's name, with the seed where this is one of several trainings."""
        seed = next(iter(self.runs))
        return f"{self.arm.name} (seed {seed})" if len(self.runs) < len(self.arm.seeds) else self.arm.name

    @cached_property
    def each_training(self) -> tuple[Result, ...]:
        """Its trainings by themselves; none where there is only one."""
        if len(self.runs) == 1:
            return ()
        return tuple(
            Result(self.arm, {seed: run}, {seed: self.timings[seed]} if seed in self.timings else {})
            for seed, run in self.runs.items()
        )

    @cached_property
    def run(self) -> Run:
        """All answers: with several trainings each question is there so often, and a mean over it is that of means."""
        first = next(iter(self.runs.values()))
        return Run(self.title, first.header, self.records, first.split_sizes)

    @cached_property
    def records(self) -> Sequence[Record]:
        """The records of all its trainings, one training after the other."""
        return list(chain.from_iterable(run.records for run in self.runs.values()))

    @property
    def questions(self) -> Sequence[Record]:
        """A record for each question, in the order of the first training."""
        return next(iter(self.runs.values())).records

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

    def timed(self, figure: Callable[[Timing], Any]) -> Any:
        """The mean of a figure, or of an array of figures, over the trainings that were timed; None if none was."""
        return np.mean([figure(timing) for timing in self.timings.values()], axis=0) if self.timings else None


@dataclass(frozen=True)
class Results:
    """What came out of all arms.

    Attributes:
        plan: What was planned.
        arms: The arms of which a training is evaluated, in the recipe's order.
        missing: What is missing, by training.
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

    @property
    def rows(self) -> list[Result]:
        """What a table has a row for: each arm, and beneath it its trainings where there are several."""
        return [row for result in self.arms.values() for row in (result, *result.each_training)]

    @property
    def timings(self) -> list[Timing]:
        """All timings that are shown."""
        return [timing for result in self.arms.values() for timing in result.timings.values()]

    def points(self) -> list[Point]:
        """One an arm for the figures, with the latency of one request at a time."""
        results = list(self.arms.values())
        seconds = [result.timed(lambda timing: timing.alone["latency"]["mean"]) for result in results]
        points = points_of([result.run for result in results], self.splits)
        return [
            replace(
                point,
                milliseconds=None if mean is None else 1000 * float(mean),
                parameters=result.arm.parameters,
                concurrency=1,
            )
            for point, result, mean in zip(points, results, seconds, strict=True)
        ]

    def pairs(self) -> list[tuple[Result, Result]]:
        """Pairs that the claims are about, and each ablation beside its own, as far as both are there."""
        roles = self.plan.recipe.roles
        names = [(large, small) for large in roles.large for small in (roles.thinking, roles.reinforced)]
        names += [(roles.direct, roles.thinking), (roles.thinking, roles.reinforced)]
        names += roles.large_thinking.items()
        names += [(arm.against, arm.name) for arm in self.plan.arms.values() if arm.against is not None]
        return [(self.arms[a], self.arms[b]) for a, b in names if a in self.arms and b in self.arms]


def load_results(plan: ReproductionPlan) -> Results:
    """Read the journals of the trainings that are evaluated, and the latencies.

    Raises:
        DataError: If a journal is damaged.
    """
    folders = {name: ArmFolder(plan.out, name) for name in plan.trainings}
    missing = {
        name: "not trained" if not folder.is_done("train") else "not evaluated"
        for name, folder in folders.items()
        if not folder.is_done("evaluate")
    }
    complete = [name for name in plan.trainings if name not in missing]
    timings, _ = read_timings(plan.out)
    untimed = apart(timings) or (None if timings else "nothing is timed")
    if untimed is not None:
        timings = {}
    runs = load_runs([folders[name].evaluate for name in complete], names=complete) if complete else []
    by_name = {run.name: run for run in runs}
    results = {}
    for arm in plan.arms.values():
        found = [each for each in arm.trainings if each.name in by_name]
        if found:
            timed = {each.seed: timings[each.name] for each in found if each.name in timings}
            results[arm.name] = Result(arm, {each.seed: by_name[each.name] for each in found}, timed)
    if untimed is None:
        missing |= {name: "not timed" for name in complete if name not in timings}
    return Results(plan, results, missing, untimed)


def by_training(*arms: Result) -> list[tuple[Result, ...]]:
    """Arms in one training each: with the same seeds each with its like, else every one with every other.

    Returns:
        As many results as arms in each; nothing where every arm was trained once.
    """
    if not any(arm.each_training for arm in arms):
        return []
    parts = [arm.each_training or (arm,) for arm in arms]
    alike = len({tuple(arm.runs) for arm in arms}) == 1
    return list(zip(*parts, strict=True)) if alike else list(product(*parts))


def per_question(
    first: Result, second: Result, values: Callable[[Result], FloatArray]
) -> tuple[FloatArray, FloatArray, IntArray]:
    """What two arms have of each question, as the mean over their trainings, and the number of its picture.

    Args:
        first: One arm.
        second: Another.
        values: What an arm has for each of its records.

    Raises:
        ValueError: If they were not asked the same questions.
    """
    numbers = {record.key: number for number, record in enumerate(first.questions)}
    if numbers.keys() != {record.key for record in second.questions}:
        raise ValueError("they were not asked the same questions")

    def means(result: Result) -> FloatArray:
        places = np.array([numbers[record.key] for record in result.records])
        return np.bincount(places, values(result), len(numbers)) / np.bincount(places, minlength=len(numbers))

    return means(first), means(second), cluster_numbers(first.questions)


def compare_hits(first: Result, second: Result, *, draws: int = 2000) -> tuple[PairedDifference, McNemar | None]:
    """The second's Acc@0.5 minus the first's; McNemar's test where each is one training, as it is one of yes and no."""
    a, b, pictures = per_question(first, second, _hits)
    single = len(first.runs) == len(second.runs) == 1
    return stats.paired_difference(a, b, pictures, draws=draws), stats.mcnemar(a, b) if single else None


def amodal_gain(first: Result, second: Result) -> Estimate:
    """The second's Acc@0.5 minus the first's where the whole object is asked for.

    Raises:
        ValueError: If that is never asked.
    """
    a, b, pictures = per_question(first, second, _hits)
    rows = np.array([bool(record.amodal) for record in first.questions])
    if not rows.any():
        raise ValueError("no whole object was asked for")
    return stats.paired_difference(a[rows], b[rows], pictures[rows], draws=2).analytic


def complexity_gap(result: Result) -> Estimate:
    """Acc@0.5 on simple phrases minus that on complex ones (`egm.failures`), clustered by picture.

    It is above 0 exactly if complex phrases have a greater share among misses than among all.

    Raises:
        ValueError: If all phrases are simple, or all are complex.
    """
    return _difference(_hits(result), result.records)


def complexity_gain(before: Result, after: Result) -> Estimate:
    """Gain in Acc@0.5 on complex phrases minus that on simple ones, clustered by picture.

    Raises:
        ValueError: If all phrases are simple, or all are complex.
    """
    a, b, _ = per_question(before, after, _hits)
    found = _difference((1 - (b - a)) / 2, before.questions)
    return replace(found, value=2 * found.value, low=2 * found.low, high=2 * found.high)


def seconds_saved(first: Result, second: Result, *, load: bool = False) -> Estimate:
    """Seconds of the first minus those of the second, a mean over the same requests.

    Args:
        first: One arm, timed.
        second: Another.
        load: Of the requests in batches, which are clusters then: what one waits for, its neighbours wait for too. With
            one batch nothing is known of the spread.
    """
    a, b = (each.timed(lambda timing: (timing.load if load else timing.alone)["seconds"]) for each in (first, second))
    size = next(iter(first.timings.values())).load["concurrency"] if load else 1
    return _scaled_difference(a, b, np.arange(len(a)) // size)


def cost_saved(first: Result, second: Result, currency: str) -> Estimate:
    """What an answer of the first takes minus what one of the second does, on the same questions, by picture.

    Args:
        first: One arm.
        second: Another.
        currency: One of `egm.report.costs.CURRENCIES`.

    Raises:
        ValueError: If it is not known of all answers of both.
    """
    a, b, pictures = per_question(first, second, lambda result: result.costs.of(currency))
    for result, values in ((first, a), (second, b)):
        if not np.isfinite(values).all():
            raise ValueError(f"the {CURRENCIES[currency]} of {result.title} are not known of all answers")
    return _scaled_difference(a, b, pictures)


def _hits(result: Result) -> FloatArray:
    return hits_of(result.records)


def _scaled_difference(first: FloatArray, second: FloatArray, clusters: IntArray) -> Estimate:
    """The mean of `first - second`, of values that may be above 1."""
    scale = max(float(first.max()), float(second.max()))
    found = stats.mean_difference(second / scale, first / scale, clusters)
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
