"""Supervised fine-tuning on rationales: TRL's SFTTrainer over EGM's samples, codec and fast path."""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from dataclasses import asdict, fields
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egm.codecs import Codec
from egm.errors import EgmError, ModelError, RecipeError
from egm.files import write_text
from egm.grounder import codec_for
from egm.training.recipe import ModelSection, SFTRecipe, dump_recipe

if TYPE_CHECKING:
    from trl import SFTConfig


def run_sft(recipe: SFTRecipe, out: Path, *, resume: bool = False, allow_leak: bool = False) -> Path:
    """Train a model.

    Args:
        recipe: What to train, on what, and how.
        out: Run folder: gets `recipe.yaml`, `run.json`, checkpoints, and at the end the model in `model/`.
        resume: Go on from the last checkpoint in `out`.
        allow_leak: Train on images of the evaluation splits of RefCOCO all the same.

    Returns:
        The folder of the trained model, which AutoModelForImageTextToText and AutoProcessor load.

    Raises:
        RecipeError: If the run folder belongs to another recipe, or there is nothing to resume.
        ModelError: If the model cannot be loaded or built.
        DataError: If the data cannot be used.
        EgmError: If the loss is no longer a number.
    """
    from datasets import Dataset

    from egm.training.collate import Collator
    from egm.training.data import Order, check_rows, open_rows
    from egm.training.trainer import GroundingTrainer

    rows = open_rows(recipe.data, recipe.run.seed)
    micro, rest = divmod(recipe.optim.batch_size, recipe.optim.accumulation * rows.samples_per_row)
    if rest or not micro:
        unit = recipe.optim.accumulation * rows.samples_per_row
        raise RecipeError(f"optim.batch_size {recipe.optim.batch_size} must be a multiple of {unit} with these data")
    model, processor = open_model(recipe.model, seed=recipe.run.seed)
    collator = Collator(
        rows,
        processor,
        _codec(model.config, processor),
        model.config,
        thinking=recipe.data.thinking,
        prompt=recipe.data.prompt,
        max_length=recipe.data.max_length,
    )
    report = check_rows(
        rows,
        thinking=recipe.data.thinking,
        max_length=recipe.data.max_length,
        length=collator.length,
        allow_leak=allow_leak,
    )
    collator([{"row": 0}])  # a fault in the first row should not wait for the optimiser
    _start(recipe, out, resume=resume)
    _note(out, data=asdict(report))
    if recipe.run.fast_path:
        from egm.models.fast import enable_fast_path

        enable_fast_path(model)
    if recipe.run.compile:
        from egm.models.compiled import compile_layers

        compile_layers(model)
    trainer = GroundingTrainer(
        use_muon=recipe.optim.optimizer == "muon",
        order=Order(rows, recipe.run.seed),
        model=model,
        args=_arguments(recipe, out, micro),
        train_dataset=Dataset.from_dict({"row": range(len(rows))}),
        data_collator=collator,
        processing_class=processor,
    )
    started = time.perf_counter()
    try:
        result = trainer.train(resume_from_checkpoint=resume or None)
    except EgmError as error:
        # What a data loader's worker raises comes with the worker's traceback in its text; its last line is ours.
        raise type(error)(str(error).strip().splitlines()[-1].partition("Error: ")[2] or str(error)) from error
    if not math.isfinite(result.training_loss):
        raise EgmError(f"the loss is {result.training_loss}: lower optim.learning_rate or raise optim.warmup_steps")
    folder = out / "model"
    if trainer.is_world_process_zero():
        _save(trainer.accelerator.unwrap_model(trainer.model), processor, folder)
        seconds = time.perf_counter() - started
        _note(out, seconds=round(seconds, 1), loss=result.training_loss, steps=trainer.state.global_step)
    trainer.accelerator.wait_for_everyone()
    return folder


def open_model(section: ModelSection, *, seed: int) -> tuple[Any, Any]:
    """Build a model from scratch, or load it, in float32, with its processor.

    Raises:
        ModelError: If there is no such model.
    """
    from egm.models import build_model, build_processor, get_preset

    if section.from_scratch:
        preset = get_preset(section.name)
        if not preset.name.startswith("tiny"):
            raise ModelError(
                f"{preset.name} cannot be built from scratch: only tiny-s, tiny-m and tiny-l have a tokenizer"
            )
        return build_model(preset.name, seed=seed), build_processor()
    from egm.backends.transformers import TransformersBackend

    backend = TransformersBackend.load(section.name, device="cpu", dtype="float32", fast=False)
    return backend.module, backend.processor


def _codec(config: Any, processor: Any) -> Codec:
    """Return the codec of what is trained, as `Grounder.load` will choose it."""
    if config.model_type not in ("qwen3_vl", "qwen3_vl_moe"):
        raise ModelError(f"egm sft trains the Qwen3-VL family, not {config.model_type!r}")
    render = partial(processor.apply_chat_template, tokenize=False, add_generation_prompt=True)
    return codec_for(config.model_type, render)


def _arguments(recipe: SFTRecipe, out: Path, micro: int) -> SFTConfig:
    import torch
    from trl import SFTConfig

    optim, run = recipe.optim, recipe.run
    on_gpu = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(out / "checkpoints"),
        max_steps=optim.steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=optim.accumulation,
        learning_rate=optim.learning_rate,
        lr_scheduler_type=optim.schedule,
        warmup_steps=optim.warmup_steps,
        weight_decay=optim.weight_decay,
        adam_beta2=optim.beta2,
        max_grad_norm=optim.max_grad_norm,
        bf16=optim.precision == "bf16" and on_gpu,
        use_cpu=not on_gpu,
        optim="adamw_torch_fused" if on_gpu else "adamw_torch",
        seed=run.seed,
        data_seed=run.seed,
        dataloader_num_workers=run.workers,
        dataloader_prefetch_factor=4 if run.workers else None,
        dataloader_persistent_workers=run.workers > 0,
        logging_steps=run.log_every,
        logging_nan_inf_filter=False,  # it would wait for the GPU at every step
        save_steps=run.save_every,
        save_total_limit=2,
        report_to=run.report_to,
        **{_checkpointing(SFTConfig): False},
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        accelerator_config={"non_blocking": on_gpu},
        disable_tqdm=not sys.stderr.isatty(),
    )


def _checkpointing(config: Any) -> str:
    """Return what this version of transformers calls the recomputing of activations."""
    names = {field.name for field in fields(config)}
    return "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"


def _start(recipe: SFTRecipe, out: Path, *, resume: bool) -> None:
    """Write the resolved recipe, or check that the folder's is the same."""
    text, kept = dump_recipe(recipe), out / "recipe.yaml"
    if resume:
        if not kept.exists() or not _checkpoints(out):
            raise RecipeError(f"nothing to resume in {out}: it holds no checkpoint; run without --resume")
        if kept.read_text(encoding="utf-8") != text:
            raise RecipeError(f"{kept} differs from this recipe: resume with the same one, or choose another --out")
        return
    if _checkpoints(out) or (out / "model").exists():
        raise RecipeError(f"{out} holds a run already: go on with --resume, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_text(kept, text)
    _note(out, seed=recipe.run.seed, command=sys.argv, versions=_versions(), hardware=_hardware())


def _checkpoints(out: Path) -> list[Path]:
    return sorted((out / "checkpoints").glob("checkpoint-*"))


def _note(out: Path, **facts: Any) -> None:
    """Add facts to the run's `run.json`."""
    path = out / "run.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_text(path, json.dumps(known | facts, indent=2) + "\n")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("egm", "torch", "transformers", "trl", "accelerate", "datasets"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            from egm._version import __version__

            found[package] = __version__ if package == "egm" else "unknown"
    return found


def _hardware() -> str:
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else f"CPU ({platform.machine()})"


def _save(model: Any, processor: Any, folder: Path) -> None:
    """Save in bfloat16, the precision that it is served in."""
    import torch

    from egm.models.fast import disable_fast_path

    disable_fast_path(model)
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)


__all__ = ["open_model", "run_sft"]
