"""A reproduction from where it stands: train, evaluate, time, report."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from egm.errors import EgmError, nearest
from egm.extras import TRAINING_PACKAGES, need
from egm.processes import interruptible
from egm.reproduce.arms import Arm, Training, resolve, trainings_of
from egm.reproduce.folder import ArmFolder, check_settled, settle, settled_ablations
from egm.reproduce.jobs import Job, Outcome, places_for, run_jobs
from egm.reproduce.latency import latency_job, why_again
from egm.reproduce.progress import Progress
from egm.reproduce.recipe import ReproduceRecipe
from egm.reproduce.stages import evaluate_job, train_job

STAGES: Final = ("train", "evaluate", "latency", "report")


@dataclass(frozen=True)
class ReproductionPlan:
    """What a call of `egm reproduce` comes to.

    Attributes:
        recipe: The recipe.
        out: The folder.
        arms: Every arm of the report, parents first: those of the recipe, and ablations asked for now or before.
        chosen: Names of the trainings that this call is about.
        until: The last stage.
    """

    recipe: ReproduceRecipe
    out: Path
    arms: Mapping[str, Arm]
    chosen: tuple[str, ...]
    until: str

    @property
    def trainings(self) -> dict[str, Training]:
        """The trainings of all arms, by name."""
        return trainings_of(self.arms.values())

    def reaches(self, stage: str) -> bool:
        """Whether the call comes as far as a stage."""
        return STAGES.index(stage) <= STAGES.index(self.until)

    def is_done(self, training: str, stage: str) -> bool:
        """Whether a stage of a training has ended."""
        return ArmFolder(self.out, training).is_done("train" if stage == "train" else "evaluate")


def make_plan(
    recipe: ReproduceRecipe,
    out: Path,
    *,
    only: Sequence[str] = (),
    ablations: Sequence[str] = (),
    until: str = "report",
) -> ReproductionPlan:
    """Check what is asked for; nothing is written.

    Args:
        recipe: The recipe.
        out: The folder.
        only: Train and evaluate these arms alone, or trainings of them; all of the recipe by default, with the
            ablations asked for.
        ablations: Ablations to add.
        until: The last stage, one of `STAGES`.

    Raises:
        RecipeError: If the recipe does not fit, or the folder holds another reproduction.
        EgmError: If an arm or stage is unknown, or an arm's parent is neither trained nor to be.
    """
    if until not in STAGES:
        raise EgmError(f"there is no stage {until!r}: {nearest(until, STAGES)}")
    before = settled_ablations(out, recipe)
    parts = {name: name.partition(".seed")[0] for name in only}
    wanted = list(dict.fromkeys([*ablations, *(arm for arm in parts.values() if arm in recipe.ablations)]))
    arms = resolve(recipe, list(dict.fromkeys([*before, *wanted])))
    check_settled(out, recipe, arms)
    trainings = trainings_of(arms.values())
    for name, arm in parts.items():
        if name not in arms.keys() | trainings.keys():
            seeds = (each.name for each in arms[arm].trainings) if arm in arms else ()
            known = (*recipe.arms, *recipe.ablations, *seeds)
            raise EgmError(f"--only {name}: there is no such arm: {nearest(name, known)}")
    names = set(only) or (arms.keys() - set(before)) | set(wanted)
    chosen = tuple(name for name, each in trainings.items() if names & {name, each.arm.name})
    for name in chosen:
        parent = trainings[name].parent
        if parent is not None and parent.name not in chosen and not _is_there(out, name, parent.name):
            raise EgmError(f"{name} starts from {parent.name}, which is not trained in {out}: add --only {parent.name}")
    return ReproductionPlan(recipe, out, arms, chosen, until)


def _is_there(out: Path, name: str, parent: str) -> bool:
    """Whether a training has, or no longer needs, the model that it starts from."""
    return ArmFolder(out, name).is_done("train") or ArmFolder(out, parent).model is not None


def run(
    plan: ReproductionPlan, *, parallel: int = 1, gpus: int = 1, seconds: float | None = None, progress: Progress
) -> Outcome:
    """Do what is left to do. Call it again after whatever ended it.

    Args:
        plan: See `make_plan`.
        parallel: How many trainings or evaluations at once, each on a GPU of its own.
        gpus: GPUs a training, through torchrun.
        seconds: After how long what runs is told to end; a training then finishes its step and writes a checkpoint.
        progress: What shows it.

    Returns:
        Why stages failed, and what is left where time was over; what does not depend on a failure was gone on with.

    Raises:
        RecipeError: If the folder holds another reproduction.
        EgmError: If there are not so many GPUs.
    """
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    need("egm reproduce", *TRAINING_PACKAGES, "matplotlib")
    places = places_for(plan.recipe.device, parallel=parallel, gpus=gpus)
    settle(plan.out, plan.recipe, plan.arms)
    with interruptible():
        outcome = run_jobs(jobs_left(plan, parallel=parallel, gpus=gpus), places, progress, deadline=deadline)
        if plan.reaches("latency"):
            timed = _time(plan, places[:1], progress, deadline)
            outcome = Outcome(outcome.failed | timed.failed, outcome.left | timed.left)
    return outcome


def jobs_left(plan: ReproductionPlan, *, parallel: int = 1, gpus: int = 1) -> list[Job]:
    """List what is left to do, training by training, so that a call cut short leaves whole ones.

    Several at once go longest first, by a training and what goes on from it, so that none is left to run alone.
    """
    jobs, trainings = [], plan.trainings
    names = sorted(plan.chosen, key=partial(_work, plan), reverse=True) if parallel > 1 else plan.chosen
    for name in names:
        training, folder = trainings[name], ArmFolder(plan.out, name)
        if not folder.is_done("train"):
            job = train_job(plan.recipe, training, plan.out, gpus=gpus)
            if folder.model is not None:  # the call ended between the training and its mark
                folder.finish("train", training.recipe.model_dump(mode="json"), None)
            else:
                jobs.append(job)
        if plan.reaches("evaluate") and not folder.is_done("evaluate"):
            jobs.append(evaluate_job(plan.recipe, training, plan.out))
    return jobs


def _work(plan: ReproductionPlan, name: str) -> float:
    trainings = plan.trainings
    later = (each for each in plan.chosen if trainings[each].parent == trainings[name])
    return trainings[name].arm.work + max((_work(plan, each) for each in later), default=0.0)


def _time(plan: ReproductionPlan, places: Sequence[str | None], progress: Progress, deadline: float) -> Outcome:
    models = {}
    for name in plan.trainings:
        folder = ArmFolder(plan.out, name)
        if folder.is_done("evaluate") and folder.model is not None:
            models[name] = folder.model
    if not models or (why := why_again(plan.out, models, plan.recipe)) is None:
        return Outcome()
    progress.message(f"latency: {len(models)} models, one after the other ({why})")
    return run_jobs([latency_job(plan.recipe, models, plan.out)], places, progress, deadline=deadline)
