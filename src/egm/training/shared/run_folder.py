"""The run folder: the resolved recipe, what the run was, its log and its checkpoints."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from egm.backends.library_noise import quiet, without_false_alarms
from egm.environment import cpu_name, gpu_name, package_versions
from egm.errors import EgmError, RecipeError
from egm.files import write_text
from egm.training.grpo.recipe import GRPORecipe
from egm.training.recipe import SFTRecipe, dump_recipe, load_recipe_as

_STATE = "trainer_state.json"  # written last, so a checkpoint that has it is whole
_FREE = {"optim.accumulation", "optim.recompute", "run.workers", "run.log_every", "run.save_every", "run.report_to"}
"""What may differ when a run goes on: it changes nothing of what is learnt, but for the order of sums."""


def start_run(recipe: SFTRecipe | GRPORecipe, out: Path) -> None:
    """Make a run folder, with the resolved recipe and what the run is.

    Raises:
        RecipeError: If the folder holds a run already.
    """
    check_free(out)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "recipe.yaml", dump_recipe(recipe))
    versions = package_versions("torch", "transformers", "trl", "accelerate", "peft", "datasets")
    note(out, seed=recipe.run.seed, command=sys.argv, versions=versions, hardware=gpu_name() or cpu_name())


def check_free(out: Path) -> None:
    """Refuse a folder that holds a run.

    Raises:
        RecipeError: If it does.
    """
    if list(_checkpoints(out)) or any((out / name).exists() for name in ("model", "adapter")):
        raise RecipeError(f"{out} holds a run already: go on with --resume, or choose another --out")


def last_checkpoint(recipe: SFTRecipe | GRPORecipe, out: Path) -> Path:
    """Find the last whole checkpoint of a run; one that a kill cut off is passed over.

    Raises:
        RecipeError: If there is none, or the folder belongs to another recipe.
    """
    kept = out / "recipe.yaml"
    whole = [folder for folder in _checkpoints(out) if _is_whole(folder)]
    if not kept.exists() or not whole:
        raise RecipeError(f"nothing to resume in {out}: it holds no checkpoint; run without --resume")
    try:
        before = load_recipe_as(type(recipe), kept)
    except RecipeError as error:
        raise RecipeError(f"{out} holds another run: choose another --out ({error})") from None
    if differing := differences(before, recipe):
        raise RecipeError(
            f"{kept} differs from this recipe in {', '.join(differing)}: resume with the same one, or choose another "
            "--out"
        )
    return max(whole, key=_step)


def has_checkpoint(out: Path) -> bool:
    """Tell whether there is a whole checkpoint to go on from."""
    return any(map(_is_whole, _checkpoints(out)))


def trained(out: Path) -> Path | None:
    """Return the folder of the model or adapter that a run ended with; None if it has not ended."""
    try:
        ended = "steps" in json.loads((out / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return next((out / name for name in ("model", "adapter") if ended and (out / name).is_dir()), None)


def train_from(trainer: Any, checkpoint: Path | None) -> float | None:
    """Train a transformers `Trainer` from a checkpoint, or from the start.

    Where no step is left after the checkpoint, its weights are loaded and nothing is trained: the run was ended between
    its last checkpoint and its model, and `Trainer.train` would do one step too many.

    Returns:
        The mean loss of the steps; the last one that was logged where there was nothing to train, None without any.
    """
    with without_false_alarms(tied=getattr(trainer.model, "all_tied_weights_keys", ())):
        if checkpoint is not None and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
            from transformers import TrainerState

            state = TrainerState.load_from_json(str(checkpoint / _STATE))
            if state.global_step >= state.max_steps:
                trainer._load_from_checkpoint(str(checkpoint))
                trainer.state = state
                losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
                return losses[-1] if losses else None
        return float(
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint)).training_loss
        )


@contextmanager
def written_whole(trainer: Any, model: Path | None = None) -> Iterator[None]:
    """Let a trainer write a checkpoint, and leave nothing of one that cannot be written.

    Args:
        trainer: A transformers `Trainer`.
        model: The folder that is written, where it is not a checkpoint's but that of the model a run ends with.

    Raises:
        EgmError: If it cannot.
    """
    try:
        with quiet():
            yield
    except Exception as error:  # safetensors, torch and the system each have errors of their own for a full disk
        step, checkpoints = trainer.state.global_step, Path(trainer.args.output_dir)
        folder = model or checkpoints / f"checkpoint-{step}"
        kept = any(_is_whole(other) for other in _checkpoints(checkpoints.parent) if other != folder)
        if trainer.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)
        if not kept:
            advice = "run again without --resume: there is no checkpoint to go on from"
        elif model is None:
            advice = "go on with --resume from the checkpoint before"
        else:
            advice = "end the run with --resume from its last checkpoint"
        what = f"the checkpoint of step {step}" if model is None else f"the trained model in {model}"
        reason = " ".join(str(error).split())[:200]
        raise EgmError(
            f"{what} could not be written ({reason}): make room on the disk of {folder.parent}, and {advice}"
        ) from error


def ran_out(error: RuntimeError) -> bool:
    """Tell whether a GPU's memory ran out: only torch's allocator has an error of its own."""
    return any(words in str(error) for words in ("out of memory", "ALLOC_FAILED"))


def note(out: Path, **facts: Any) -> None:
    """Add facts to the run's `run.json`."""
    path = out / "run.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_text(path, json.dumps(known | facts, indent=2) + "\n")


def _checkpoints(out: Path) -> list[Path]:
    return sorted((out / "checkpoints").glob("checkpoint-[0-9]*"), key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _is_whole(folder: Path) -> bool:
    try:
        json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def differences(before: SFTRecipe | GRPORecipe, now: SFTRecipe | GRPORecipe) -> list[str]:
    """Return the keys whose values make another run of it, as `section.key`."""
    old, new = _by_key(before), _by_key(now)
    return sorted({key for key in old.keys() | new.keys() if old.get(key) != new.get(key)} - _FREE)


def _by_key(recipe: SFTRecipe | GRPORecipe) -> dict[str, Any]:
    content = recipe.model_dump(mode="json")
    sections = {name: values for name, values in content.items() if isinstance(values, dict)}
    keys = {f"{name}.{key}": value for name, values in sections.items() for key, value in values.items()}
    return keys | {name: value for name, value in content.items() if name not in sections and value is not None}
