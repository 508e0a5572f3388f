"""A reproduction from where it stands: train, evaluate, time, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from egm.errors import EgmError, nearest
from egm.extras import TRAINING_PACKAGES, need
from egm.processes import interruptible
from egm.reproduce.arms import Arm, resolve
from egm.reproduce.folder import ArmFolder, check_settled, settle, settled_ablations
from egm.reproduce.jobs import Job, places_for, run_jobs
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
        chosen: Names of those that are trained and evaluated in this call.
        until: The last stage.
    """

    recipe: ReproduceRecipe
    out: Path
    arms: Mapping[str, Arm]
    chosen: tuple[str, ...]
    until: str

    def reaches(self, stage: str) -> bool:
        """Whether the call comes as far as a stage."""
        return STAGES.index(stage) <= STAGES.index(self.until)

    def is_done(self, arm: str, stage: str) -> bool:
        """Whether a stage of an arm has ended."""
        return ArmFolder(self.out, arm).is_done("train" if stage == "train" else "evaluate")


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
        only: Train and evaluate these arms alone; all of the recipe by default, with the ablations asked for.
        ablations: Ablations to add.
        until: The last stage, one of `STAGES`.

    Raises:
        RecipeError: If the recipe does not fit, or the folder holds another reproduction.
        EgmError: If an arm or stage is unknown, or an arm's parent is neither trained nor to be.
    """
    if until not in STAGES:
        raise EgmError(f"there is no stage {until!r}: {nearest(until, STAGES)}")
    before = settled_ablations(out, recipe)
    wanted = list(dict.fromkeys([*ablations, *(name for name in only if name in recipe.ablations)]))
    arms = resolve(recipe, list(dict.fromkeys([*before, *wanted])))
    check_settled(out, recipe, arms)
    for name in only:
        if name not in arms:
            raise EgmError(
                f"--only {name}: there is no such arm: {nearest(name, tuple(recipe.arms | recipe.ablations))}"
            )
    chosen = set(only) or (arms.keys() - set(before)) | set(wanted)
    for name in sorted(chosen):
        parent = arms[name].parent
        if parent is not None and parent.name not in chosen and ArmFolder(out, parent.name).model is None:
            raise EgmError(f"{name} starts from {parent.name}, which is not trained in {out}: add --only {parent.name}")
    return ReproductionPlan(recipe, out, arms, tuple(name for name in arms if name in chosen), until)


def run(plan: ReproductionPlan, *, parallel: int = 1, gpus: int = 1, progress: Progress) -> dict[str, str]:
    """Do what is left to do. Call it again after whatever ended it.

    Args:
        plan: See `make_plan`.
        parallel: How many arms to train or evaluate at once, each on a GPU of its own.
        gpus: GPUs a training, through torchrun.
        progress: What shows it.

    Returns:
        Why stages failed, by name; arms that do not depend on those were gone on with.

    Raises:
        RecipeError: If the folder holds another reproduction.
        EgmError: If there are not so many GPUs.
    """
    need("egm reproduce", *TRAINING_PACKAGES, "matplotlib")
    places = places_for(plan.recipe.device, parallel=parallel, gpus=gpus)
    settle(plan.out, plan.recipe, plan.arms)
    with interruptible():
        failed = run_jobs(jobs_left(plan, parallel=parallel, gpus=gpus), places, progress)
        if plan.reaches("latency"):
            failed |= _time(plan, places[:1], progress)
    return failed


def jobs_left(plan: ReproductionPlan, *, parallel: int = 1, gpus: int = 1) -> list[Job]:
    """List what is left to do: one at a time arm by arm, so that a call cut short leaves whole arms."""
    jobs = []
    for name in plan.chosen:
        arm, folder = plan.arms[name], ArmFolder(plan.out, name)
        if not folder.is_done("train"):
            job = train_job(plan.recipe, arm, plan.out, gpus=gpus)
            if folder.model is not None:  # the call ended between the training and its mark
                folder.finish("train", arm.recipe.model_dump(mode="json"), None)
            else:
                jobs.append(job)
        if plan.reaches("evaluate") and not folder.is_done("evaluate"):
            jobs.append(evaluate_job(plan.recipe, arm, plan.out))
    if parallel > 1:  # several at once longest first, so that none is left to run alone at the end
        jobs.sort(key=lambda job: job.work, reverse=True)
    return jobs


def _time(plan: ReproductionPlan, places: Sequence[str | None], progress: Progress) -> dict[str, str]:
    models = {}
    for name in plan.arms:
        folder = ArmFolder(plan.out, name)
        if folder.is_done("evaluate") and folder.model is not None:
            models[name] = folder.model
    if not models or (why := why_again(plan.out, models, plan.recipe)) is None:
        return {}
    progress.message(f"latency: {len(models)} arms, one after the other ({why})")
    return run_jobs([latency_job(plan.recipe, models, plan.out)], places, progress)
