"""Reinforcement on boxes: TRL's GRPOTrainer over EGM's samples, codec, rewards and decoding."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from egm.datasets import open_dataset
from egm.errors import DataError, EgmError, RecipeError
from egm.extras import TRAINING_PACKAGES, need
from egm.training.grpo.recipe import GreedySection, GRPORecipe
from egm.training.rewards.reward import Reward
from egm.types import Sample

if TYPE_CHECKING:
    from transformers import TrainerCallback
    from trl import GRPOConfig

    from egm.training.grpo.prompts import SampleTable
    from egm.training.grpo.trainer import GroundingGRPOTrainer

_MAIN_FIGURES = (
    "reward",
    "accuracy",
    "no_box",
    "frac_reward_zero_std",
    "completions/mean_length",
    "entropy",
    "kl",
    "grad_norm",
    "step_time",
    "eval_accuracy",
    "eval_mean_iou",
)
"""What standard error shows of a line of the log."""

_LOSSES = {"grpo": "grpo", "dapo": "dapo", "dr_grpo": "dr_grpo", "gspo": "grpo"}
"""TRL's names; gspo is its grpo with one ratio a completion."""


def run_grpo(
    recipe: GRPORecipe, out: Path, *, resume: bool = False, check: bool = True, reward: Reward | None = None
) -> Path | None:
    """Reinforce a model.

    Args:
        recipe: What to train, on what, and how.
        out: Run folder: gets `recipe.yaml`, `run.json`, `log.jsonl`, checkpoints, `rollouts/`, with each checkpoint
            a page of them in `rollouts.html`, and at the end the model in `model/`, or in `adapter/` with LoRA.
        resume: Go on from the last checkpoint in `out`.
        check: Score 16 rollouts first, and refuse a run that could not learn.
        reward: What completions are worth, in place of what the recipe says.

    Returns:
        The folder of the trained model; None if SIGTERM ended the run before its time, with a checkpoint to go on from.

    Raises:
        RecipeError: If the recipe does not fit the processes, the run folder is another run's, or there is none.
        ModelError: If the model cannot be loaded, or is of another family.
        DataError: If the data cannot be used.
        EgmError: If the preflight fails, a checkpoint or the model cannot be written, memory runs out, or the loss is
            no longer a number.
    """
    need("egm grpo", *TRAINING_PACKAGES)
    from egm.training.grpo.rollouts import write_page
    from egm.training.shared.callbacks import AfterCheckpoint, StopOnSignal
    from egm.training.shared.driver import ran_out, train_from
    from egm.training.shared.model import save_trained
    from egm.training.shared.run_folder import add_facts, last_checkpoint, start_run

    stop = StopOnSignal()
    checkpoint = last_checkpoint(recipe, out) if resume else None  # a refusal should not wait for the model
    trainer = make_trainer(recipe, out, check=check and not resume, reward=reward, callbacks=[stop])
    main = trainer.is_world_process_zero()
    if not resume and main:
        start_run(recipe, out, seed=recipe.run.seed)
    trainer.accelerator.wait_for_everyone()
    page = partial(write_page, out / "rollouts", out / "rollouts.html")
    if main and recipe.rollout.keep:  # a run that is killed has one too
        trainer.add_callback(AfterCheckpoint(page))
    started = time.perf_counter()
    try:
        loss = train_from(trainer, checkpoint)
    except RuntimeError as error:
        if not ran_out(error):
            raise
        raise EgmError(
            f"out of GPU memory at step {trainer.state.global_step + 1}: lower rollout.rows, raise optim.accumulation, "
            "set optim.recompute, or train an adapter with model.lora"
        ) from error
    if loss is not None and not math.isfinite(loss):
        raise EgmError(f"the loss is {loss}: lower optim.learning_rate or raise optim.warmup_steps")
    if main and recipe.rollout.keep:
        page()
    if stop.stopped:
        return None
    folder = out / ("adapter" if recipe.model.lora else "model")
    save_trained(trainer, trainer.processing_class, folder)
    if main:
        seconds = round(time.perf_counter() - started, 1)
        add_facts(out, seconds=seconds, loss=loss, steps=trainer.state.global_step)
    trainer.accelerator.wait_for_everyone()
    return folder


def check_grpo(recipe: GRPORecipe, out: Path, *, check: bool = True) -> None:
    """Check all that `run_grpo` checks before its first step, 16 rollouts with it; nothing is trained or written.

    Raises:
        EgmError: As `run_grpo` does.
    """
    need("egm grpo", *TRAINING_PACKAGES)
    from egm.training.shared.run_folder import check_free

    check_free(out)
    with TemporaryDirectory() as folder:  # a trainer makes its folder
        make_trainer(recipe, Path(folder), check=check)


def make_trainer(
    recipe: GRPORecipe,
    out: Path,
    *,
    check: bool = False,
    reward: Reward | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> GroundingGRPOTrainer:
    """Make the trainer of a recipe: all that it needs is loaded and checked, and nothing is written yet.

    Args:
        recipe: What to train, on what, and how.
        out: Run folder.
        check: Refuse a folder that holds a run, and a run that could not learn by 16 rollouts.
        reward: What completions are worth, in place of what the recipe says.
        callbacks: Called before the trainer's own.

    Raises:
        EgmError: As `run_grpo` does.
    """
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, ProgressCallback

    from egm.backends.tokens import stop_tokens
    from egm.models.families import trained_family
    from egm.training.data.styles import first_style
    from egm.training.grpo.decoder import make_decoder, takes_fast_path
    from egm.training.grpo.preflight import PROMPTS, check_digits, preflight
    from egm.training.grpo.prompts import PromptCollator, PromptPrefetcher
    from egm.training.grpo.rollouts import RolloutWriter
    from egm.training.grpo.trainer import GroundingGRPOTrainer
    from egm.training.shared.callbacks import LogFile, PeriodicEvaluation
    from egm.training.shared.model import make_codec, open_model
    from egm.training.shared.processes import check_precision
    from egm.training.shared.run_folder import check_free
    from egm.training.shared.trainable import choose_parts

    _check_settings(recipe)
    if check:
        check_free(out)
    args, rollout = trl_arguments(recipe, out), recipe.rollout
    table, held_out = open_table(recipe), held_out_samples(recipe.eval)
    keys = ["run.compile"] if recipe.run.compile else []
    model, processor = open_model(recipe.model, seed=recipe.run.seed, uses=("egm grpo", *keys))
    codec = make_codec(model.config, processor)
    family, fast = trained_family(model.config), takes_fast_path(recipe, model.config)
    if family.single_digits:
        check_digits(processor.tokenizer, recipe.model.name)
    model = choose_parts(model, recipe.model, seed=recipe.run.seed)
    if fast:
        from egm.models.fast.enable import enable_fast_path

        enable_fast_path(model)
    reward = reward or Reward(recipe.reward, codec)
    max_tokens = rollout.max_prompt if rollout.engine == "vllm-colocate" else None
    collator = PromptCollator(processor, codec, recipe.data.prompt, max_tokens, family=family, fast=fast)
    if check:
        model = model.to(args.device)
        stops = stop_tokens(model.generation_config.eos_token_id, processor.tokenizer.eos_token_id)
        torch.manual_seed(recipe.run.seed)
        first = [table[number] for number in range(min(PROMPTS, len(table)))]
        decoder = make_decoder(model, processor, stops, recipe, bf16=args.bf16)
        preflight(recipe, first, collator=collator, decoder=decoder, reward=reward, stops=stops)
        del decoder
    if recipe.run.compile:
        from egm.models.fast.compiled import compile_layers

        compile_layers(model)
    stride = recipe.optim.prompts * rollout.candidates
    trainer = GroundingGRPOTrainer(
        recipe=recipe,
        prefetcher=PromptPrefetcher(table, collator, stride=stride, workers=recipe.run.workers),
        collator=collator.styled(first_style(recipe.data.prompt)),  # held-out samples are answered in this process
        reward=reward,
        rollouts=RolloutWriter(out / "rollouts", keep=rollout.keep, process=args.process_index),
        model=model,
        args=args,
        train_dataset=Dataset.from_dict({"number": range(len(table) // rollout.candidates)}),
        processing_class=processor,
    )
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        check_precision(bf16=args.bf16)
        _refuse_sharded(recipe)
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    for callback in (*callbacks, LogFile(out / "log.jsonl", _MAIN_FIGURES, trainer.failure_notes.lines)):
        trainer.add_callback(callback)
    if recipe.eval is not None:
        trainer.add_callback(PeriodicEvaluation(recipe.eval.every, partial(trainer.measure, held_out)))
    return trainer


def _check_settings(recipe: GRPORecipe) -> None:
    """Refuse what the shared sections allow and reinforcement does not, and an engine that is not installed."""
    if recipe.run.flatten:
        raise RecipeError("run.flatten is for egm sft: egm grpo packs its sequences in its own way; leave it out")
    if recipe.rollout.engine.startswith("vllm") and importlib.util.find_spec("vllm") is None:
        raise RecipeError(
            f"rollout.engine {recipe.rollout.engine} needs vLLM, which is not installed here: pip install 'trl[vllm]', "
            "or set rollout.engine to batched"
        )


def open_table(recipe: GRPORecipe) -> SampleTable:
    """Open the samples in the order in which they are asked about."""
    import torch

    from egm.training.data import SYNTHETIC, MixedRows, Order, check_boxes, open_rows
    from egm.training.grpo.prompts import SampleTable

    data = recipe.data
    rows = open_rows(data.train, seed=recipe.run.seed, images=data.images, scenes=data.scenes)
    check_boxes(rows)
    order: list[int] | None = None
    if isinstance(rows, MixedRows):
        order = list(Order(rows, recipe.run.seed))
    elif data.train not in SYNTHETIC:  # scenes come in no order already
        generator = torch.Generator().manual_seed(recipe.run.seed)
        order = torch.randperm(len(rows), generator=generator).tolist()
    table = SampleTable(rows, order)
    needed = recipe.optim.prompts * recipe.rollout.candidates
    if len(table) < needed:
        raise DataError(
            f"data.train has {len(table)} samples, fewer than a step asks: {needed} (optim.prompts x "
            "rollout.candidates)"
        )
    return table


def _refuse_sharded(recipe: GRPORecipe) -> None:
    """Refuse what needs whole weights, where each process has a shard of them."""
    whole = [] if recipe.eval is None else ["eval"]
    whole += [] if recipe.rollout.engine.startswith("vllm") else [f"rollout.engine {recipe.rollout.engine}"]
    if whole:
        raise RecipeError(
            f"{' and '.join(whole)} decode with the whole model on each process: under FSDP and DeepSpeed leave eval "
            "out, and take a vLLM engine"
        )


def held_out_samples(section: GreedySection | None) -> list[Sample]:
    """Open what is measured while training; nothing without a section.

    Raises:
        DataError: If a sample has no box.
    """
    if section is None:
        return []
    samples = list(open_dataset(section.data, images=section.images, first=section.samples))
    if bare := next((sample for sample in samples if sample.truths is None), None):
        raise DataError(f"sample {bare.id} of eval.data {section.data} has no box: held-out samples need one")
    return samples


def rows_per_pass(recipe: GRPORecipe, processes: int) -> int:
    """Return the completions of one forward pass on one of so many processes.

    Raises:
        RecipeError: If the prompts do not divide among processes and passes.
    """
    prompts, group = recipe.optim.prompts, recipe.rollout.group
    passes = recipe.optim.updates * recipe.optim.accumulation
    rows, rest = divmod(prompts * group, processes * passes)
    if prompts % processes or rest:
        raise RecipeError(
            f"optim.prompts {prompts} (groups of {group}) do not divide among {processes} processes and "
            f"optim.updates x optim.accumulation = {passes} passes: choose a multiple"
        )
    return rows


def trl_arguments(recipe: GRPORecipe, out: Path) -> GRPOConfig:
    """Word the recipe for TRL's trainer.

    Raises:
        RecipeError: If the prompts do not divide among the processes.
    """
    import torch
    from accelerate import PartialState
    from trl import GRPOConfig

    optim, rollout, run = recipe.optim, recipe.rollout, recipe.run
    on_gpu = torch.cuda.is_available()
    rows = rows_per_pass(recipe, PartialState(cpu=not on_gpu).num_processes)
    scale = optim.scale or ("none" if optim.loss == "dr_grpo" else "group")
    return GRPOConfig(
        output_dir=str(out / "checkpoints"),
        max_steps=optim.steps,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=optim.accumulation,
        steps_per_generation=optim.updates * optim.accumulation,
        num_generations=rollout.group,
        num_iterations=optim.iterations,
        loss_type=_LOSSES[optim.loss],
        importance_sampling_level="sequence" if optim.loss == "gspo" else "token",
        beta=optim.kl,
        use_bias_correction_kl=optim.loss != "gspo",  # unbiased with one ratio a token, not with one a sequence
        epsilon=optim.clip_low,
        epsilon_high=optim.clip_high,
        scale_rewards=scale,
        max_completion_length=rollout.max_new_tokens,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        top_k=rollout.top_k,
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
        shuffle_dataset=False,  # the table of samples has its order already
        logging_steps=run.log_every,
        save_steps=run.save_every,
        save_total_limit=None,  # see `prune`
        report_to=run.report_to,
        remove_unused_columns=False,
        disable_tqdm=True,  # see `ShowProgress`
        **_engine(recipe),
        **_recomputing(GRPOConfig, recompute=optim.recompute),
    )


def _engine(recipe: GRPORecipe) -> dict[str, Any]:
    """Word the engine for TRL; vLLM has a `logit_bias` by which placeholders of pictures are never sampled."""
    from egm.backends.checkpoint import find_checkpoint
    from egm.models.families import image_tokens

    config = find_checkpoint(recipe.model.name).config
    banned = image_tokens(config)
    rollout = recipe.rollout
    if not rollout.engine.startswith("vllm"):
        return {}
    options: dict[str, Any] = {
        "use_vllm": True,
        "vllm_mode": rollout.engine.removeprefix("vllm-"),
        "generation_kwargs": {"logit_bias": dict.fromkeys(banned, -100.0)},
    }
    if rollout.engine == "vllm-server":
        return options | {"vllm_server_base_url": rollout.url}
    # vLLM's own choice is the model's context: hundreds of thousands of tokens, whose cache would have to fit.
    needed = rollout.max_prompt + rollout.max_new_tokens
    context = config.get("text_config", config).get("max_position_embeddings", needed)
    return options | {
        "vllm_gpu_memory_utilization": rollout.gpu_memory,
        "vllm_max_model_length": min(needed, int(context)),
    }


def _recomputing(config: Any, *, recompute: bool) -> dict[str, bool]:
    from egm.training.shared.model import checkpointing_name

    return {checkpointing_name(config): recompute}
