"""Supervised fine-tuning on rationales: TRL's SFTTrainer over EGM's samples, codec and fast path."""

from __future__ import annotations

import importlib.util
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from egm.errors import EgmError, RecipeError
from egm.extras import TRAINING_PACKAGES, need
from egm.training.data import Rows, open_rows
from egm.training.data.styles import first_style
from egm.training.data.workers import without_traceback
from egm.training.sft.recipe import SFTRecipe
from egm.training.shared.driver import ran_out, train_from
from egm.training.shared.model import checkpointing_name, has_fast_path, make_codec, open_model, save_trained
from egm.training.shared.processes import check_precision, process_count, sharding
from egm.training.shared.run_folder import add_facts, check_free, last_checkpoint, start_run

if TYPE_CHECKING:
    from trl import SFTConfig

    from egm.training.data import DataReport
    from egm.training.data.collate import Collator
    from egm.training.sft.held_out import HeldOut
    from egm.training.sft.trainer import GroundingTrainer

_MAIN_FIGURES = (
    "loss",
    "mean_token_accuracy",
    "grad_norm",
    "samples_per_second",
    "eval_loss",
    "eval_accuracy",
    "eval_mean_iou",
    "train_samples_per_second",
)
"""What standard error shows of a line of the log."""


def run_sft(recipe: SFTRecipe, out: Path, *, resume: bool = False, allow_leak: bool = False) -> Path | None:
    """Train a model, on one process or as one of several that accelerate or torchrun has launched.

    Args:
        recipe: What to train, on what, and how.
        out: Run folder: gets `recipe.yaml`, `run.json`, `log.jsonl`, checkpoints, and at the end the model in `model/`,
            or the adapter in `adapter/`.
        resume: Go on from the last checkpoint in `out`.
        allow_leak: Train on images of the evaluation splits of RefCOCO all the same. Their whole list is written to
            `OUT.leaks.txt` beside the run folder either way.

    Returns:
        The folder of the trained model, which AutoModelForImageTextToText and AutoProcessor load, or of the adapter;
        None if SIGTERM ended the run before its time, with a checkpoint to go on from.

    Raises:
        RecipeError: If the run folder belongs to another recipe, or there is nothing to resume.
        ModelError: If the model cannot be loaded or built.
        DataError: If the data cannot be used.
        EgmError: If a checkpoint or the model cannot be written, memory runs out, or the loss is no longer a number.
    """
    need("egm sft", *TRAINING_PACKAGES)
    from egm.training.shared.callbacks import StopOnSignal

    checkpoint = last_checkpoint(recipe, out) if resume else None
    if checkpoint is None:
        check_free(out)
    trainer, report = _prepare(recipe, out, allow_leak=allow_leak, listing=_listing(out))
    trainer.add_callback(stop := StopOnSignal(every=recipe.run.log_every))
    if checkpoint is None:
        with trainer.args.main_process_first(local=False):
            if trainer.is_world_process_zero():
                start_run(recipe, out, seed=recipe.run.seed)
                add_facts(out, data=asdict(report))
    started = time.perf_counter()
    with _one_line(recipe, trainer):
        trainer.data_collator([{"row": 0}])  # a fault in the first row should not wait for the optimiser
        loss = train_from(trainer, checkpoint)
        trainer.check()
        if stop.stopped:
            return None
        if recipe.eval is not None and trainer.state.global_step % recipe.eval.every:
            trainer.evaluate()
    folder = out / ("model" if recipe.model.lora is None else "adapter")
    save_trained(trainer, trainer.processing_class, folder)
    if trainer.is_world_process_zero():
        seconds = time.perf_counter() - started
        facts = {"loss": loss, "steps": trainer.state.global_step}
        add_facts(out, seconds=round(seconds, 1), processes=trainer.args.world_size, **facts)
    trainer.accelerator.wait_for_everyone()
    return folder


def check_sft(recipe: SFTRecipe, out: Path, *, allow_leak: bool = False) -> DataReport:
    """Check all that `run_sft` checks before its first step, and make one batch; nothing is trained.

    Nothing is written either, but for the list of leaks.

    Raises:
        EgmError: As `run_sft` does.
    """
    need("egm sft", *TRAINING_PACKAGES)
    check_free(out)
    with TemporaryDirectory() as folder:  # a trainer makes its folder
        trainer, report = _prepare(recipe, Path(folder), allow_leak=allow_leak, listing=_listing(out))
        with _one_line(recipe, trainer):
            trainer.data_collator([{"row": 0}])
    return report


def _listing(out: Path) -> Path:
    return out.with_name(f"{out.name}.leaks.txt")


def _prepare(recipe: SFTRecipe, out: Path, *, allow_leak: bool, listing: Path) -> tuple[GroundingTrainer, DataReport]:
    """Make the trainer of a recipe once its data, its model and what it asks of the machine are checked."""
    from egm.training.data import check_rows

    rows = _rows(recipe)
    held_out = _held_out(recipe)
    _rows_per_pass(recipe, rows)  # a wrong batch size should not wait for the model
    _check_report(recipe.run.report_to)
    keys = [f"run.{key}" for key in ("flatten", "compile") if getattr(recipe.run, key)]
    model, processor = open_model(recipe.model, seed=recipe.run.seed, uses=("egm sft", *keys))
    report = check_rows(  # before the trainer, which makes the run folder
        rows,
        thinking=recipe.data.thinking,
        max_length=recipe.data.max_length,
        length=_collator(recipe, model, processor, rows).length,
        allow_leak=allow_leak,
        listing=listing,
    )
    with _one_line(recipe):
        trainer = make_trainer(recipe, model, processor, rows, out, held_out=held_out)
    return trainer, report


def make_trainer(
    recipe: SFTRecipe, model: Any, processor: Any, rows: Rows, out: Path, *, held_out: HeldOut | None = None
) -> GroundingTrainer:
    """Make the trainer of a recipe around a model.

    Args:
        recipe: How to train; what it says of model and data has been seen to.
        model: The model, see `open_model`.
        processor: Its processor.
        rows: What to train on.
        out: Run folder; nothing is written yet.
        held_out: What to measure while training.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, ProgressCallback

    from egm.training.data import Order
    from egm.training.sft.flattened import Flattening, flatten, use_flat_attention
    from egm.training.sft.trainer import GroundingTrainer
    from egm.training.shared.callbacks import LogFile
    from egm.training.shared.trainable import choose_parts, recompute_layers

    micro, run = _rows_per_pass(recipe, rows), recipe.run
    collator = _collator(recipe, model, processor, rows)
    if run.fast_path and has_fast_path(model.config):
        from egm.models.fast.enable import enable_fast_path

        enable_fast_path(model)
    if run.flatten:
        use_flat_attention(model)
    if run.compile:
        from egm.models.fast.compiled import compile_layers

        compile_layers(model)
    model = choose_parts(model, recipe.model, seed=recipe.run.seed)
    recompute_layers(model, recipe.optim.recompute)
    trainer = GroundingTrainer(
        optim=recipe.optim,
        codec=collator.codec,
        collate=(lambda samples: flatten(collator.collate(samples))) if run.flatten else collator.collate,
        order=Order(rows, run.seed),
        held_out=held_out,
        model=model,
        args=_arguments(recipe, out, micro, micro * rows.samples_per_row),
        train_dataset=Dataset.from_dict({"row": range(len(rows))}),
        eval_dataset=None if held_out is None else Dataset.from_dict({"row": [0]}),  # `evaluate` has its own samples
        data_collator=Flattening(collator) if run.flatten else collator,
        processing_class=processor,
        callbacks=[LogFile(out / "log.jsonl", _MAIN_FIGURES)],
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        _refuse_sharded(recipe, trainer)
    return trainer


def _refuse_sharded(recipe: SFTRecipe, trainer: GroundingTrainer) -> None:
    """Refuse what needs whole weights, where each process has a shard of them, and another precision."""
    check_precision(bf16=trainer.args.bf16)
    if recipe.optim.optimizer == "muon":  # AdamW steps each number by itself, and so does its rounding
        raise RecipeError(
            "optim.optimizer muon needs whole matrices on each process: set it to adamw under FSDP and DeepSpeed"
        )
    if recipe.eval is not None and recipe.eval.greedy:
        raise RecipeError("eval.greedy needs the whole model on each process: set it to 0 under FSDP and DeepSpeed")


def _rows(recipe: SFTRecipe) -> Rows:
    data = recipe.data
    return open_rows(
        data.train,
        seed=recipe.run.seed,
        images=data.images,
        scenes=data.scenes,
        phrases=data.phrases,
        rationale=data.rationale,
    )


def _collator(recipe: SFTRecipe, model: Any, processor: Any, rows: Rows) -> Collator:
    from egm.training.data.collate import Collator

    data = recipe.data
    options: dict[str, Any] = {"thinking": data.thinking, "direct": data.direct, "cut": data.cut}
    options |= {"prompt": data.prompt, "max_length": data.max_length}
    options["fast"] = recipe.run.fast_path and has_fast_path(model.config)
    # Laid end to end there is no padding to be left out.
    options["masks"] = not recipe.run.flatten and hasattr(model.config.get_text_config(), "output_router_logits")
    return Collator(rows, processor, make_codec(model.config, processor), model.config, **options)


def _rows_per_pass(recipe: SFTRecipe, rows: Rows) -> int:
    """Return the rows of one pass on one process."""
    processes = process_count()
    unit = processes * recipe.optim.accumulation * rows.samples_per_row
    micro, rest = divmod(recipe.optim.batch_size, unit)
    if rest or not micro:
        raise RecipeError(
            f"optim.batch_size {recipe.optim.batch_size} must be a multiple of {unit} with these data: {processes} "
            f"processes x {recipe.optim.accumulation} passes x {rows.samples_per_row} samples a row"
        )
    return micro


def _held_out(recipe: SFTRecipe) -> HeldOut | None:
    if recipe.eval is None:
        return None
    from egm.training.sft.held_out import choose_held_out

    first = max(recipe.eval.samples, recipe.eval.greedy)
    rows = open_rows(recipe.eval.data, images=recipe.eval.images, seed=recipe.run.seed, first=first, held_out=True)
    prompt = first_style(recipe.data.prompt)
    return choose_held_out(rows, recipe.eval, thinking=recipe.data.thinking, prompt=prompt)


def _check_report(report_to: str) -> None:
    if report_to != "none" and importlib.util.find_spec(report_to) is None:
        raise RecipeError(f"run.report_to {report_to}: it is not installed; pip install {report_to}")


def _arguments(recipe: SFTRecipe, out: Path, micro: int, eval_batch: int) -> SFTConfig:
    import torch
    from trl import SFTConfig

    optim, run = recipe.optim, recipe.run
    on_gpu = torch.cuda.is_available()
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(out / "tensorboard")  # it takes no argument
    # bfloat16 weights need no autocast, which would only slow the norms down; an adapter is float32, and so are shards.
    whole_bf16 = recipe.model.dtype == "bfloat16" and recipe.model.lora is None and sharding() is None
    autocast = optim.precision == "bf16" and not whole_bf16
    return SFTConfig(
        output_dir=str(out / "checkpoints"),
        run_name=out.name,
        max_steps=optim.steps if optim.steps is not None else -1,
        num_train_epochs=optim.epochs if optim.epochs is not None else 1,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=eval_batch,
        gradient_accumulation_steps=optim.accumulation,
        learning_rate=optim.learning_rate,
        lr_scheduler_type=optim.schedule,
        warmup_steps=optim.warmup_steps,
        weight_decay=optim.weight_decay,
        adam_beta2=optim.beta2,
        max_grad_norm=optim.max_grad_norm,
        bf16=autocast and on_gpu,
        use_cpu=not on_gpu,
        optim="adamw_torch_fused" if on_gpu else "adamw_torch",
        seed=run.seed,
        data_seed=run.seed,
        dataloader_num_workers=run.workers,
        dataloader_prefetch_factor=4 if run.workers else None,
        dataloader_persistent_workers=run.workers > 0,
        logging_steps=run.log_every,
        logging_nan_inf_filter=False,  # it would wait for the GPU at every step
        eval_strategy="no" if recipe.eval is None else "steps",
        eval_steps=None if recipe.eval is None else recipe.eval.every,
        save_steps=run.save_every,
        save_total_limit=None,  # see `prune`
        report_to=run.report_to,
        **{checkpointing_name(SFTConfig): False},  # see `recompute_layers`
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        accelerator_config={"non_blocking": on_gpu},
        ddp_find_unused_parameters=False,  # every step shows pictures, so nothing that is trained goes unused
        disable_tqdm=True,  # see `ShowProgress`
    )


@contextmanager
def _one_line(recipe: SFTRecipe, trainer: GroundingTrainer | None = None) -> Iterator[None]:
    """Say in one line what ends a training run, or before there is a trainer the making of one."""
    try:
        yield
    except EgmError as error:
        raise without_traceback(error) from error
    except RuntimeError as error:
        if not ran_out(error):
            raise
        raise EgmError(_out_of_memory(recipe, trainer)) from error


def _out_of_memory(recipe: SFTRecipe, trainer: GroundingTrainer | None) -> str:
    """Say where a GPU's memory ran out, and which settings take less."""
    where, advice = "out of GPU memory while the model is moved there", []
    if trainer is not None:
        samples = math.ceil(recipe.optim.batch_size / recipe.optim.accumulation / trainer.args.world_size)
        where = f"out of GPU memory at step {trainer.state.global_step + 1} with {samples} samples in a pass"
        advice = ["raise optim.accumulation or lower optim.batch_size"]
        if recipe.optim.recompute < 1:
            advice.append("raise optim.recompute towards 1")
    if recipe.model.dtype == "float32":
        advice.append("set model.dtype to bfloat16")
    if recipe.model.lora is None and trainer is not None and not recipe.model.from_scratch:
        advice.append("freeze parts in model.freeze, or train an adapter with model.lora")
    advice.append("share it among several GPUs with a file of recipes/accelerate")
    after = "; with another optim.accumulation or optim.recompute alone, --resume goes on from a checkpoint"
    return f"{where}: {'; '.join(advice)}{after if trainer is not None else ''}"
