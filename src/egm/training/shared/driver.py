"""Driving a transformers `Trainer`: from a checkpoint or the start, with checkpoints that are whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from egm.backends.library_noise import quiet, without_false_alarms
from egm.errors import EgmError, ModelError, RecipeError
from egm.progress import progress_task
from egm.training.shared.checkpoints import STATE, advice, checkpoints_in, is_whole, prune

_LOADERS = ("_load_from_checkpoint", "_load_optimizer_and_scheduler", "_load_rng_state", "_load_scaler")
"""The methods of `Trainer` that load a part of a checkpoint."""


def train_from(trainer: Any, checkpoint: Path | None) -> float | None:
    """Train a transformers `Trainer` from a checkpoint, or from the start.

    Where no step is left after the checkpoint, it is loaded and nothing is trained: the run was ended between its last
    checkpoint and its model, and `Trainer.train` would do one step too many.

    Returns:
        The mean loss of the steps; the last one that was logged where there was nothing to train, None without any.

    Raises:
        ModelError: If a trained weight gets no gradient in the first step.
        RecipeError: If the checkpoint cannot be loaded.
    """
    from transformers import TrainerState

    from egm.training.shared.callbacks import (
        CheckFirstGradients,
        EndBeforeSteps,
        NoStepLeft,
        ShowProgress,
        WarnOfWarmup,
    )

    trainer.add_callback(WarnOfWarmup())
    if not trainer.is_deepspeed_enabled:  # which keeps gradients elsewhere
        trainer.add_callback(CheckFirstGradients())
    with without_false_alarms(tied=getattr(trainer.model, "all_tied_weights_keys", ())), closing_loader(trainer):
        if checkpoint is not None:
            sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
            if not sharded and not hasattr(trainer.model, "peft_config"):
                trainer._load_from_checkpoint = partial(_load_weights, trainer.model)
            for part in _LOADERS:
                setattr(trainer, part, _refusing(getattr(trainer, part), checkpoint))
            state = _refusing(TrainerState.load_from_json, checkpoint)(str(checkpoint / STATE))
            if state.global_step >= state.max_steps:
                # The trainer itself loads it, since shards are loaded into what it has wrapped.
                trainer.callback_handler.callbacks.insert(0, EndBeforeSteps())
                with suppress(NoStepLeft):
                    trainer.train(resume_from_checkpoint=str(checkpoint))
                trainer.is_in_train = False
                losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
                return losses[-1] if losses else None
        with progress_task("training") as task:
            trainer.add_callback(ShowProgress(task))
            return float(
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint)).training_loss
            )


def _load_weights(model: Any, folder: str, *_: Any) -> None:
    """Load a checkpoint's weights as a model folder's are loaded.

    `Trainer` takes the names in the file for the model's own. Of several families they are others (Qwen2.5-VL,
    InternVL, the experts of Qwen3.5), and then it goes on with the weights that were there, and only warns.

    Raises:
        ModelError: If the file lacks some.
    """
    with quiet():
        loaded, info = type(model).from_pretrained(
            folder, dtype=model.dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(f"it lacks {len(missing)} weights, such as {missing[0]}")
    model.load_state_dict(loaded.state_dict())


@contextmanager
def closing_loader(trainer: Any) -> Iterator[None]:
    """End the processes that load for a trainer, however its training ends."""
    try:
        yield
    finally:
        trainer.end_loading()


def _refusing(load: Callable[..., Any], checkpoint: Path) -> Callable[..., Any]:
    """Let what loads a part of a checkpoint say in one line which cannot be loaded, and what to go on from instead."""

    def refusing(*args: Any, **kwargs: Any) -> Any:
        try:
            return load(*args, **kwargs)
        except Exception as error:  # torch, pickle, zipfile and safetensors have errors of their own
            if isinstance(error, RuntimeError) and ran_out(error):
                raise
            reason = " ".join(str(error).split())[:200]
            raise RecipeError(f"{checkpoint} cannot be loaded ({reason}): {advice(checkpoint)}") from error

    return refusing


@contextmanager
def written_whole(trainer: Any, model: Path | None = None) -> Iterator[None]:
    """Let a trainer write a checkpoint and prune those before, and leave nothing of one that cannot be written.

    Args:
        trainer: A transformers `Trainer`.
        model: The folder that is written, where it is not a checkpoint's but that of the model a run ends with.

    Raises:
        EgmError: If it cannot.
    """
    try:
        with quiet():
            yield
        if model is None and trainer.args.should_save:
            prune(Path(trainer.args.output_dir).parent)  # the library would take a user's copies too
    except Exception as error:  # safetensors, torch and the system each have errors of their own for a full disk
        step, checkpoints = trainer.state.global_step, Path(trainer.args.output_dir)
        folder = model or checkpoints / f"checkpoint-{step}"
        can_resume = any(is_whole(other) for other in checkpoints_in(checkpoints.parent) if other != folder)
        if trainer.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)
        if not can_resume:
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
