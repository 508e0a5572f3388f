"""The recipe of `egm grpo`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, model_validator

from egm.backends.openai.connection import server_url
from egm.errors import EgmError
from egm.training.recipe import ModelSection, Prompts, RunSection, Section, Sources
from egm.training.rewards.reward import RewardSection

ROWS_TOGETHER: Final = 2048
"""Completions that are decoded together if the recipe does not say, with the fast path on."""


class PromptSection(Section):
    """What is asked."""

    train: Sources = "synthref/train"
    """`synthref/train`, `synthref/train-complex` (more relations, so fewer groups that are right throughout),
    `synthref/train-reworded` (those in other words as well), or a file of any format that
    `egm.datasets.open_dataset` reads; or a list of sources, which are mixed by weight. Rows need boxes, not
    rationales."""
    images: Path | None = None
    """Folder that holds the images; for a `.jsonl` file its own folder by default."""
    scenes: int = Field(default=100_000, ge=1)
    """How many scenes of a training split of SynthRef, before they repeat."""
    prompt: Prompts | None = None
    """Prompt style of the codec, its own default if not given; or a list of styles, in one of which each sample is
    asked. It should be what the fine-tuning had; held-out samples are asked in the first."""


class RolloutSection(Section):
    """How completions are drawn."""

    engine: Literal["batched", "transformers", "vllm-server", "vllm-colocate"] = "batched"
    """`batched` decodes the whole step at once in this process, each prompt and picture read once; for models that
    fit one GPU. Families without the fast path go through the library's own `generate` there, in batches, with the
    same draws; `transformers` asks for that with any family. `vllm-server` and `vllm-colocate` are TRL's two ways to
    vLLM."""
    group: int = Field(default=8, ge=2)
    """Completions a prompt."""
    candidates: int = Field(default=1, ge=1)
    """How many prompts are asked for each that is trained on: those whose rewards differ most are taken, on each
    process (the dynamic sampling of DAPO, arXiv 2503.14476, with a fixed number of draws). Not with vLLM
    above 1."""
    branch: str | None = Field(default=None, min_length=1)
    """Text at whose first occurrence the completions of a group part: up to the token that completes it they share
    what was drawn once. That is not trained on, nor held by `optim.kl`, since it cannot have made one better than
    another (as in VinePPO, arXiv 2410.01679, which parts at every step to value it). A completion without it is
    drawn whole. Not given, all are. Not with vLLM."""
    max_new_tokens: int = Field(default=320, ge=1)
    """Where a completion is cut off."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of sampling."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """The likeliest tokens that together reach this probability."""
    top_k: int = Field(default=0, ge=0)
    """The k likeliest tokens; 0 keeps all."""
    rows: int | None = Field(default=None, ge=1)
    """Most completions that are decoded together in this process; not given, 2048 with the fast path, and 64 by the
    library's `generate`, which keeps prompt and picture of each."""
    cuda_graphs: bool = True
    """Whether `batched` replays its steps as CUDA graphs."""
    url: str = "http://127.0.0.1:8000"
    """Where the vLLM server is, without a password: a recipe is kept in the run folder and in a model's card."""
    gpu_memory: float = Field(default=0.3, gt=0, lt=1)
    """Share of a GPU that a colocated vLLM may take."""
    max_prompt: int = Field(default=4096, ge=1)
    """Longest question in tokens that a colocated vLLM makes room for, the tokens of the picture included (one for
    32 x 32 pixels); a longer one is refused. Its context is this and `max_new_tokens`."""
    keep: int = Field(default=4, ge=0)
    """How many groups of each step are kept in `rollouts/`, by each process."""


class PolicySection(Section):
    """How the policy is improved."""

    steps: int = Field(ge=1)
    """Optimiser steps."""
    prompts: int = Field(default=256, ge=1)
    """Prompts a generation, over all processes."""
    updates: int = Field(default=1, ge=1)
    """Optimiser steps that a generation is split into; with more than one, the later ones are off-policy and the
    clipping begins to matter."""
    accumulation: int = Field(default=1, ge=1)
    """Forward passes an optimiser step."""
    iterations: int = Field(default=1, ge=1)
    """How often each generation is gone through."""
    loss: Literal["grpo", "dapo", "dr_grpo", "gspo"] = "dapo"
    """`grpo` (arXiv 2402.03300: mean over each completion, then over completions), `dapo` (arXiv 2503.14476: mean
    over all tokens), `dr_grpo` (arXiv 2503.20783: sum over `max_new_tokens`, advantages not scaled) or `gspo` (arXiv
    2507.18071: one ratio a completion)."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the KL divergence from the model at the start: `r - 1 - log r` at each token, r how much likelier
    the first model took it for (arXiv 2402.03300, equation 4), times the ratio of the policies, which leaves its
    gradient unbiased (arXiv 2512.02556, section 3.1). `gspo` has no ratio a token, and leaves that out."""
    clip_low: float = Field(default=0.2, gt=0)
    """A ratio counts down to `1 - clip_low`."""
    clip_high: float | None = Field(default=None, gt=0)
    """A ratio counts up to `1 + clip_high`; as `clip_low` if not given."""
    scale: Literal["group", "batch", "none"] | None = None
    """What advantages are divided by: the deviation of the group, of the batch, or nothing. Not given, `none` for
    dr_grpo and `group` otherwise."""
    zero_spread: Literal["count", "mask"] = "mask"
    """Groups whose rewards are all equal teach nothing. `count` only counts them; `mask` also leaves them out of the
    loss and of what it is averaged over, KL included."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """Peak rate."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """How the rate falls after the warm-up."""
    warmup_steps: int = Field(default=10, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    beta2: float = Field(default=0.999, gt=0, lt=1)
    """AdamW's second moment decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    precision: Literal["bf16", "float32"] = "bf16"
    """`bf16` computes in bfloat16 on a GPU."""
    recompute: bool = False
    """Keep no activations and compute them again on the way back."""


class GreedySection(Section):
    """What is measured while training: Acc@0.5 and mean IoU of greedy answers."""

    data: str = "synthref/val"
    """A named split such as `synthref/val`, or a file that `egm.datasets.open_dataset` reads."""
    images: Path | None = None
    """Folder that holds the images."""
    every: int = Field(default=50, ge=1)
    """Steps between two evaluations; there is one before the first step and one after the last."""
    samples: int = Field(default=500, ge=1)
    """How many of the first samples are asked."""


class GRPORecipe(Section):
    """A whole recipe for `egm grpo`."""

    stage: Literal["grpo"] = "grpo"
    """The command that the recipe is for."""
    model: ModelSection
    """What is trained."""
    data: PromptSection = PromptSection()
    """What is asked."""
    reward: RewardSection = RewardSection()
    """What a completion is worth."""
    rollout: RolloutSection = RolloutSection()
    """How completions are drawn."""
    optim: PolicySection
    """How the policy is improved."""
    eval: GreedySection | None = None
    """What is measured while training; nothing if not given."""
    run: RunSection = RunSection()
    """How the run goes about it."""

    @model_validator(mode="after")
    def _fits_together(self) -> GRPORecipe:
        if self.model.from_scratch:
            raise ValueError(
                "model.from_scratch: reinforcement needs a model that answers: train one with egm sft first"
            )
        if self.model.dtype == "bfloat16" and self.model.lora is None:
            raise ValueError(
                "model.dtype bfloat16 rounds the small steps of reinforcement away: set it to float32, or train a "
                "model.lora"
            )
        try:
            server_url(self.rollout.url)
        except EgmError:
            raise ValueError(
                "rollout.url is no server's URL, or has more in it than where that is, such as a password: give one "
                "such as http://127.0.0.1:8000"
            ) from None
        if self.rollout.candidates > 1 and self.rollout.engine.startswith("vllm"):
            raise ValueError(
                f"rollout.candidates {self.rollout.candidates} needs rollout.engine batched, not {self.rollout.engine}"
            )
        if self.rollout.branch is not None and self.rollout.max_new_tokens < 2:
            raise ValueError("rollout.branch needs rollout.max_new_tokens of at least 2: something must follow it")
        if self.rollout.branch is not None and self.rollout.engine.startswith("vllm"):
            raise ValueError(f"rollout.branch needs rollout.engine batched, not {self.rollout.engine}")
        passes = self.optim.updates * self.optim.accumulation
        rollouts = self.optim.prompts * self.rollout.group
        if rollouts % passes:
            raise ValueError(
                f"optim.prompts {self.optim.prompts} x rollout.group {self.rollout.group} = {rollouts} completions do "
                f"not divide into optim.updates x optim.accumulation = {passes} passes"
            )
        return self
