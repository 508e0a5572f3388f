"""The recipe of `egm sft`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from egm.datasets.synthetic import Style
from egm.training.recipe import ModelSection, Prompts, RunSection, Section, Sources


class DataSection(Section):
    """What it is trained on."""

    train: Sources = "synthref/train"
    """`synthref/train`, `synthref/train-complex` (more relations), or a file of any format that
    `egm.datasets.open_dataset` reads; or a list of sources, which are mixed by weight."""
    images: Path | None = None
    """Folder that holds the images; for a `.jsonl` file its own folder by default."""
    scenes: int = Field(default=1_000_000, ge=1)
    """How many scenes of a training split of SynthRef, before they repeat."""
    phrases: int = Field(default=4, ge=1, le=4)
    """Samples a scene of SynthRef, at most: fewer show more scenes, and take longer to make."""
    rationale: Style = "candidates"
    """How SynthRef's rationales refer to objects."""
    thinking: bool = True
    """Train on the rationale and the box; without, on the box alone."""
    direct: float = Field(default=0.0, ge=0, lt=1)
    """Share of the samples whose reasoning is closed before it begins, by the prompt, so that their target is the box
    alone: the model thinks as before, and answers directly where it is asked to."""
    cut: float = Field(default=0.0, ge=0, lt=1)
    """Share of the samples whose reasoning is cut off at any of its tokens and closed, by the prompt, as a thinking
    budget does; their target is the box alone. So the model points as well as it can where its time is over."""
    prompt: Prompts | None = None
    """Prompt style of the codec, its own default if not given; or a list of styles, in one of which each sample is
    asked, so that the model answers in any. The first is that of the held-out samples."""
    max_length: int = Field(default=1024, ge=64)
    """Longest sequence in tokens; a longer sample is an error that names it."""

    @model_validator(mode="after")
    def _direct_of_thinking(self) -> DataSection:
        if (self.direct or self.cut) and not self.thinking:
            raise ValueError(
                "without thinking all samples are direct: leave direct and cut out, or set thinking to true"
            )
        if self.direct + self.cut >= 1:
            raise ValueError("direct and cut are shares of one whole, and some samples have to think to the end")
        return self


class OptimSection(Section):
    """How it is trained."""

    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps; give these or `epochs`."""
    epochs: float | None = Field(default=None, gt=0, le=100_000)
    """Passes over the data."""
    batch_size: int = Field(default=256, ge=1)
    """Samples a step, over all processes."""
    accumulation: int = Field(default=1, ge=1)
    """Forward passes a step; `batch_size` is split among processes and passes."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` is for the inner matrices, with AdamW for the rest, and learns faster from scratch; it needs whole
    matrices, so not under FSDP or DeepSpeed."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak rate."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """How the rate falls after the warm-up."""
    warmup_steps: float = Field(default=100, ge=0)
    """Steps of linear warm-up; below 1, the share of all steps."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    beta2: float = Field(default=0.999, gt=0, lt=1)
    """AdamW's second moment decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    precision: Literal["bf16", "float32"] = "bf16"
    """`bf16` computes in bfloat16 on a GPU."""
    rounding: Literal["nearest", "stochastic"] = "nearest"
    """How AdamW rounds bfloat16 weights. `nearest` loses steps that are smaller than a 512th of a weight; `stochastic`
    keeps them on average."""
    recompute: float = Field(default=0.0, ge=0, le=1)
    """Share of the layers that keep no activations and compute them again on the way back."""

    @model_validator(mode="after")
    def _know_the_end(self) -> OptimSection:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"{'key steps is missing' if self.steps is None else 'two ends'}: give steps or epochs")
        return self


class EvalSection(Section):
    """What is measured on held-out samples while training, beside the training loss."""

    data: str
    """A named split such as `synthref/val`, or a file that `egm.datasets.open_dataset` reads."""
    images: Path | None = None
    """Folder that holds the images."""
    every: int = Field(default=500, ge=1)
    """Steps between two evaluations; there is one at the end too."""
    samples: int = Field(default=256, ge=0)
    """How many of the first samples the loss is taken over; 0 takes none."""
    greedy: int = Field(default=0, ge=0)
    """How many of the first samples are answered greedily, for Acc@0.5 and mean IoU; 0 answers none."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Where such an answer is cut off."""


class SFTRecipe(Section):
    """A whole recipe for `egm sft`."""

    stage: Literal["sft"] = "sft"
    """The command that the recipe is for."""
    model: ModelSection
    """What is trained."""
    data: DataSection = DataSection()
    """What it is trained on."""
    optim: OptimSection
    """How it is trained."""
    run: RunSection = RunSection()
    """How the run goes about it."""
    eval: EvalSection | None = None
    """What is measured on held-out samples while training; nothing if not given."""
