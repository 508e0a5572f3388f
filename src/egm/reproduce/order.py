"""In which order jobs begin when several run at once, so that the whole ends soonest.

What takes longest begins first, and what it takes is counted to the end of all that waits for it: the critical path
(Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM J. Appl. Math. 17, 1969; for jobs that wait for others Adam
et al., "A Comparison of List Schedules for Parallel Processing Systems", CACM 17, 1974). An evaluation,
short beside a training, comes after those that are ready, and begins where none is. How long jobs take is not known
before: they are ordered by a rough measure, which changes nothing but when they begin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from egm.reproduce.arms import Arm
from egm.reproduce.jobs import Job
from egm.reproduce.recipe import EvaluateSection
from egm.reproduce.stages import job_name
from egm.training.sft.recipe import SFTRecipe

_UNKNOWN_SIZE = 1_000_000_000  # parameters of a model from a folder: taken for large, which at worst begins too early
# By the trainings of recipes/reproduce.yaml on H100s: a sample costs a small model more in launches and loading than in
# arithmetic, with its rationale hardly more than without, and a completion, drawn and learnt from, four samples.
_BASE = 100_000_000
_THINKING = 1.2
_DRAWN = 4
_SCENES, _PHRASES = 500, 4  # of a frozen split, and at most of a scene


def soonest(jobs: Sequence[Job], arms: Iterable[Arm], asked: EvaluateSection) -> list[Job]:
    """Put jobs in the order of beginning, the longest chain first; equals keep their order.

    Args:
        jobs: Trainings and evaluations that are left to do.
        arms: The arms that they are of.
        asked: What each arm is asked.
    """
    work = {}
    for arm in arms:
        work[job_name(arm.name, "train")] = _size(arm) * _samples(arm)
        work[job_name(arm.name, "evaluate")] = _size(arm) * (asked.scenes or _SCENES) * _PHRASES * len(asked.splits)

    def chain(job: Job) -> float:
        done, total = job.count() or (0, 1)  # of a training that was interrupted the rest counts
        left = work[job.name] * (1 - min(done, total) / max(1, total))
        return left + max((chain(other) for other in jobs if job.name in other.after), default=0.0)

    return sorted(jobs, key=chain, reverse=True)


def _size(arm: Arm) -> float:
    """What a sample costs, in parameters."""
    return (_BASE + (arm.parameters or _UNKNOWN_SIZE)) * (_THINKING if arm.thinks else 1)


def _samples(arm: Arm) -> float:
    """How many samples it learns from, reinforcement by completions."""
    if isinstance(arm.recipe, SFTRecipe):
        data = arm.recipe.data
        return arm.samples or (arm.recipe.optim.epochs or 1) * data.scenes * data.phrases
    drawn = arm.recipe.rollout
    return (arm.samples or 0) * drawn.group * drawn.candidates * _DRAWN
