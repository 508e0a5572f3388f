"""A recipe of `egm grpo` in the words of verl: a hydra configuration. Its mini-batches are counted in prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from egm.errors import RecipeError
from egm.training.grpo.recipe import ROWS_TOGETHER, GRPORecipe
from egm.training.recipe import ModelSection
from egm.training.verl.unsaid import in_rollouts, rollouts_of, unsaid

REWARD: Final = "pkg://egm.training.verl"
"""Where verl finds the reward."""
CPUS_A_GPU: Final = 3
"""CPUs that verl reserves beside each GPU (`ResourcePoolManager.max_colocate_count`)."""
OTHER_CPUS: Final = 2
"""CPUs of the queue's controller, and of whatever actor is being placed: one is free at any time."""
_UNITS = 8  # storage units of the queue, one CPU each: verl's own number
_STORED = 100_000  # samples that it holds, verl's own number
_WORKERS = 8  # of reward and agent loops: verl's own number
_LOSSES: Final = {
    "grpo": ("vanilla", "seq-mean-token-mean"),
    "dapo": ("vanilla", "token-mean"),
    "dr_grpo": ("vanilla", "seq-mean-token-sum-norm"),
    "gspo": ("gspo", "seq-mean-token-mean"),
}
"""verl's loss and how it is averaged, for each loss of a recipe."""
_NO_DUAL_CLIP = 1.0e9  # TRL has none; verl always clips negative advantages a second time, at this ratio


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a run may use.

    Attributes:
        gpus: GPUs of each node.
        nodes: How many nodes.
        cpus: CPUs of all nodes together that are free; None where nobody knows yet.
    """

    gpus: int
    nodes: int
    cpus: int | None = None

    @property
    def world(self) -> int:
        """GPUs of all nodes together."""
        return self.gpus * self.nodes


@dataclass(frozen=True, slots=True)
class Policy:
    """What of the model the configuration needs.

    Attributes:
        path: Its folder.
        codec: Name of its codec.
        context: Positions that it has.
        patch: Side of a patch of its vision tower in pixels.
        merge: How many patches a side become one token.
        pixels: Fewest and most pixels that its processor makes of a picture.
    """

    path: Path
    codec: str
    context: int
    patch: int
    merge: int
    pixels: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says beside the recipe.

    Attributes:
        engine: `vllm` or `sglang`.
        flash: Whether flash-attn is there: then padding is removed before the forward pass.
        resume: Whether to go on from the last checkpoint.
        log: File that verl writes its figures to, anew at each start.
    """

    engine: str = "vllm"
    flash: bool = False
    resume: bool = False
    log: Path = Path("verl.jsonl")


@dataclass(frozen=True, slots=True)
class Configured:
    """A configuration.

    Attributes:
        content: What goes into the file that hydra reads.
        notes: What the recipe says and verl cannot, each with what it becomes.
        rollouts: Generations, which verl calls steps.
    """

    content: dict[str, Any]
    notes: list[str]
    rollouts: int


def prompt_limit(recipe: GRPORecipe, policy: Policy) -> int:
    """Return the longest prompt in tokens that fits beside a completion.

    Raises:
        RecipeError: If none does.
    """
    left = policy.context - recipe.rollout.max_new_tokens
    if left < 1:
        raise RecipeError(
            f"rollout.max_new_tokens {recipe.rollout.max_new_tokens} leaves no room for a prompt in the model's "
            f"{policy.context} positions: lower it"
        )
    return min(recipe.rollout.max_prompt, left)


def configure(recipe: GRPORecipe, out: Path, policy: Policy, cluster: Cluster, options: Options) -> Configured:
    """Word a recipe for verl.

    Args:
        recipe: What to train, on what, and how.
        out: The run folder, absolute: data, log, rollouts and checkpoints go there.
        policy: What of the model is needed.
        cluster: What the run may use.
        options: What the command line says.

    Raises:
        RecipeError: If completions do not divide among GPUs and passes, or CPUs or positions do not suffice.
    """
    optim, rollout, run = recipe.optim, recipe.rollout, recipe.run
    micro, mini = _batches(recipe, cluster)
    generations, notes = rollouts_of(recipe), unsaid(recipe, options.engine)
    loss, averaged = _LOSSES[optim.loss]
    prompt, answer = prompt_limit(recipe, policy), rollout.max_new_tokens
    workers = _WORKERS if cluster.cpus is None else max(1, min(_WORKERS, cluster.cpus // _WORKERS))
    evaluated = recipe.eval is not None
    actor: dict[str, Any] = {
        "strategy": "fsdp",
        "ppo_mini_batch_size": mini,
        "ppo_micro_batch_size_per_gpu": micro,
        "ppo_epochs": optim.iterations,
        "shuffle": optim.updates > 1,
        "data_loader_seed": run.seed,
        "clip_ratio": optim.clip_low,
        "clip_ratio_low": optim.clip_low,
        "clip_ratio_high": optim.clip_high if optim.clip_high is not None else optim.clip_low,
        "clip_ratio_c": _NO_DUAL_CLIP,
        "loss_agg_mode": averaged,
        "loss_scale_factor": answer if optim.loss == "dr_grpo" else None,
        "policy_loss": {"loss_mode": loss},
        "entropy_coeff": 0,
        "use_kl_loss": optim.kl > 0,
        "kl_loss_coef": optim.kl,
        # The estimate is the recipe's; `+` takes its gradient from the squared difference, which leaves it unbiased.
        "kl_loss_type": "low_var_kl" if optim.loss == "gspo" else "low_var_kl+",
        "optim": {
            "lr": optim.learning_rate,
            "lr_scheduler_type": "constant" if optim.schedule == "constant_with_warmup" else "cosine",
            "lr_warmup_steps": in_rollouts(recipe, optim.warmup_steps, least=0),
            "weight_decay": optim.weight_decay,
            "betas": [0.9, optim.beta2],
            "clip_grad": optim.max_grad_norm,
        },
        "fsdp_config": _fsdp(recipe),
        # `hf_model` is what `egm models export` takes.
        "checkpoint": {"save_contents": ["model", "optimizer", "extra", *([] if recipe.model.lora else ["hf_model"])]},
    }
    content = {
        "hydra": {
            "searchpath": ["pkg://verl.trainer.config"],
            "run": {"dir": str(out / "hydra")},
            "output_subdir": None,
        },
        "defaults": ["ppo_trainer", "_self_"],
        "algorithm": {
            "adv_estimator": "grpo",
            "norm_adv_by_std_in_grpo": (optim.scale or ("none" if optim.loss == "dr_grpo" else "group")) != "none",
            "use_kl_in_reward": False,
            "filter_groups": {
                "enable": rollout.candidates > 1,
                "metric": "reward",
                "max_inflight_gen_batches": rollout.candidates,
            },
        },
        "data": {
            "train_files": str(out / "data" / "train.parquet"),
            "val_files": str(out / "data" / ("val.parquet" if evaluated else "train.parquet")),
            "val_max_samples": -1 if evaluated else 1,
            "image_key": "images",
            "image_patch_size": policy.patch,
            "train_batch_size": optim.prompts,
            "max_prompt_length": prompt,
            "max_response_length": answer,
            "filter_overlong_prompts": False,  # too long ones are refused before
            "truncation": "error",
            "shuffle": False,  # rows are written in the order in which they are asked
            "validation_shuffle": False,
            "seed": run.seed,
            "dataloader_num_workers": run.workers,
        },
        "actor_rollout_ref": {
            "model": _model(recipe.model, policy, options, recompute=optim.recompute),
            "actor": actor,
            "ref": {"log_prob_micro_batch_size_per_gpu": micro, "fsdp_config": _fsdp(recipe)},
            "rollout": {
                "name": options.engine,
                "n": rollout.group,
                "temperature": rollout.temperature,
                "top_p": rollout.top_p,
                "top_k": rollout.top_k or -1,
                "seed": run.seed,
                "dtype": "bfloat16" if optim.precision == "bf16" else "float32",
                "load_format": "safetensors" if recipe.model.lora else "dummy",
                "gpu_memory_utilization": rollout.gpu_memory,
                "enforce_eager": not rollout.cuda_graphs,
                "max_model_len": prompt + answer,
                "max_num_batched_tokens": max(8192, prompt + answer),
                "max_num_seqs": min(
                    rollout.rows or ROWS_TOGETHER, math.ceil(optim.prompts * rollout.group / cluster.world)
                ),
                "tensor_model_parallel_size": 1,
                "limit_images": 1,
                "log_prob_micro_batch_size_per_gpu": micro,
                "agent": {"num_workers": workers},
                "val_kwargs": {"temperature": 0, "do_sample": False, "n": 1},
            },
        },
        "reward": {
            "num_workers": workers,
            "custom_reward_function": {
                "path": REWARD,
                "name": "compute_score",
                "reward_kwargs": _reward(recipe, policy),
            },
        },
        "transfer_queue": {
            "backend": {
                "SimpleStorage": {
                    "num_data_storage_units": storage_units(cluster),
                    "total_storage_size": max(_STORED, 4 * optim.prompts * rollout.group),
                }
            }
        },
        "trainer": {
            "nnodes": cluster.nodes,
            "n_gpus_per_node": cluster.gpus,
            "total_epochs": generations,  # more than enough: `total_training_steps` ends the run
            "total_training_steps": generations,
            "save_freq": in_rollouts(recipe, run.save_every),
            "max_actor_ckpt_to_keep": 2,
            "test_freq": in_rollouts(recipe, recipe.eval.every) if recipe.eval is not None else -1,
            "val_before_train": evaluated and not options.resume,
            "logger": ["console", "file", *([] if run.report_to == "none" else [run.report_to])],
            "project_name": "egm",
            "experiment_name": out.name,
            "rollout_data_dir": str(out / "verl_rollouts") if rollout.keep else None,
            "default_local_dir": str(out / "checkpoints"),
            "resume_mode": "auto" if options.resume else "disable",
        },
        "ray_kwargs": {"ray_init": {"runtime_env": {"env_vars": _environment(out, options)}}},
    }
    return Configured(content, notes, generations)


def storage_units(cluster: Cluster) -> int:
    """Return how many units the queue gets, a CPU each.

    Raises:
        RecipeError: If no CPU is left for one: the queue would wait for it without a word.
    """
    if cluster.cpus is None:
        return _UNITS
    left = cluster.cpus - CPUS_A_GPU * cluster.world - OTHER_CPUS
    if left < 1:
        raise RecipeError(
            f"verl needs {CPUS_A_GPU * cluster.world + OTHER_CPUS + 1} CPUs for {cluster.world} GPUs ({CPUS_A_GPU} "
            f"beside each, and {OTHER_CPUS + 1} for its queue), and {cluster.cpus} are free: it would wait for ever; "
            "use fewer GPUs, or nodes with more CPUs"
        )
    return min(_UNITS, left)


def _batches(recipe: GRPORecipe, cluster: Cluster) -> tuple[int, int]:
    """Return completions of one forward pass of one GPU, and prompts of an optimiser step."""
    optim, group = recipe.optim, recipe.rollout.group
    mini, odd = divmod(optim.prompts, optim.updates)
    if odd:
        raise RecipeError(
            f"optim.prompts {optim.prompts} do not divide into optim.updates {optim.updates}: verl splits a generation "
            "by its prompts, so choose a multiple"
        )
    micro, rest = divmod(mini * group, cluster.world * optim.accumulation)
    if rest or not micro:
        raise RecipeError(
            f"{mini} prompts x rollout.group {group} = {mini * group} completions an optimiser step do not divide "
            f"among {cluster.world} GPUs and optim.accumulation {optim.accumulation} passes: choose a multiple"
        )
    return micro, mini


def _fsdp(recipe: GRPORecipe) -> dict[str, Any]:
    return {
        "fsdp_size": -1,
        "model_dtype": "bf16" if recipe.model.dtype == "bfloat16" else "fp32",
        "dtype": "bfloat16" if recipe.optim.precision == "bf16" else "float32",
        "seed": recipe.run.seed,
    }


def _model(section: ModelSection, policy: Policy, options: Options, *, recompute: bool) -> dict[str, Any]:
    model: dict[str, Any] = {
        "path": str(policy.path),
        "enable_gradient_checkpointing": recompute,
        "use_remove_padding": options.flash,
    }
    if not options.flash:
        model["override_config"] = {"attn_implementation": "sdpa"}
    if section.lora is not None:
        model |= {
            "lora_rank": section.lora.rank,
            "lora_alpha": round(section.lora.alpha),
            "target_modules": list(section.lora.modules),
        }
    return model


def _reward(recipe: GRPORecipe, policy: Policy) -> dict[str, Any]:
    section: Mapping[str, Any] = recipe.reward.model_dump(mode="json", exclude_none=True)
    tokenizer = {"tokenizer": str(policy.path)} if recipe.reward.overlong is not None else {}
    return {"codec": policy.codec, **tokenizer, "reward": section}


def _environment(out: Path, options: Options) -> dict[str, str]:
    """What verl's loggers take from the environment, of whichever node they run on."""
    return {"VERL_FILE_LOGGER_PATH": str(options.log), "TENSORBOARD_DIR": str(out / "tensorboard")}
