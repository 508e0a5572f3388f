"""The stages of a training as jobs: `egm sft` or `egm grpo`, then `egm eval`, each going on where it was cut short."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from egm.files import write_text
from egm.journal import JOURNAL_NAME
from egm.reproduce.arms import Training
from egm.reproduce.folder import ArmFolder
from egm.reproduce.jobs import CannotBeginError, Job
from egm.reproduce.recipe import ReproduceRecipe
from egm.training.recipe import dump_recipe
from egm.training.shared.run_folder import has_checkpoint

_TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node")


def job_name(training: str, stage: str) -> str:
    """The name of a stage's job."""
    return f"{training} {stage}"


def train_job(recipe: ReproduceRecipe, training: Training, out: Path, *, gpus: int) -> Job:
    """Train, from the last checkpoint if there is one."""
    folder, parent = ArmFolder(out, training.name), training.parent

    def command() -> Sequence[str]:
        model = None
        if parent is not None and (model := ArmFolder(out, parent.name).model) is None:
            raise CannotBeginError(
                f"{training.name} starts from {parent.name}, whose model is not in {out}: train it first"
            )
        made = training.starting_from(model)
        write_text(folder.path / "train.yaml", dump_recipe(made))
        options = ["--out", str(folder.train)]
        if has_checkpoint(folder.train):
            options.append("--resume")
        elif folder.train.exists():  # killed before there was anything to go on from
            shutil.rmtree(folder.train)
        if made.stage == "grpo" and not recipe.preflight:
            options.append("--skip-preflight")
        start = (*_TORCHRUN, str(gpus), "-m") if gpus > 1 else ()
        return [*start, "egm.cli", made.stage, str(folder.path / "train.yaml"), *options]

    steps = training.arm.steps
    return Job(
        name=job_name(training.name, "train"),
        command=command,
        log=folder.log("train"),
        finish=partial(folder.finish, "train", training.recipe.model_dump(mode="json")),
        after=() if parent is None else (job_name(parent.name, "train"),),
        folder=folder,
        count=lambda: None if steps is None else (_last_step(folder.train / "log.jsonl"), steps),
    )


def evaluate_job(recipe: ReproduceRecipe, training: Training, out: Path) -> Job:
    """Ask what was trained all questions; those that its journal holds are not asked again."""
    folder, settings = ArmFolder(out, training.name), recipe.evaluate

    def command() -> Sequence[str]:
        if folder.model is None:
            raise CannotBeginError(f"the model of {training.name} is not in {out}: train it first")
        options = ["--model", str(folder.model), "--out", str(folder.evaluate), "--device", recipe.device]
        options += ["--concurrency", str(settings.batch_size), "--max-tokens", str(settings.max_new_tokens)]
        if settings.scenes is not None:
            options += ["--scenes", str(settings.scenes)]
        return ["egm.cli", "eval", *settings.splits, *options]

    return Job(
        name=job_name(training.name, "evaluate"),
        command=command,
        log=folder.log("evaluate"),
        finish=partial(folder.finish, "evaluate", settings.model_dump(mode="json")),
        after=(job_name(training.name, "train"),),
        folder=folder,
        count=partial(_answered, folder.evaluate / JOURNAL_NAME),
    )


def _last_step(log: Path) -> int:
    try:
        lines = log.read_bytes().splitlines()
        return int(json.loads(lines[-1])["step"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return 0


def _answered(journal: Path) -> tuple[int, int] | None:
    try:
        with journal.open("rb") as file:
            datasets: dict[str, Any] = json.loads(file.readline())["datasets"]
            lines = sum(chunk.count(b"\n") for chunk in iter(partial(file.read, 1 << 20), b""))
    except (OSError, ValueError, KeyError):
        return None
    return lines, sum(int(facts["n"]) for facts in datasets.values())
