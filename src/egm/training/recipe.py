"""Recipes: one YAML file a run, every key checked, the nearest right one named when a key is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from egm.datasets.synthetic import Style
from egm.errors import RecipeError, closest

Part = Literal["vision_tower", "projector", "language_model", "embeddings"]
"""A part of a model that can be frozen: the projector is the merger and the deepstack mergers."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LoraSection(_Section):
    """A low-rank adapter (Hu et al., 2021, arXiv 2106.09685) on frozen weights.

    Attributes:
        rank: Rank of the two factors.
        alpha: The product of the factors is scaled by `alpha / rank`.
        dropout: Dropout before the first factor.
        modules: Names of the linear layers that get one; the default is every one of the language model.
        full: Parts that are trained whole beside the adapter.
    """

    rank: int = Field(default=64, ge=1)
    alpha: float = Field(default=128.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    full: tuple[Literal["projector"], ...] = ()


class ModelSection(_Section):
    """What is trained.

    Attributes:
        name: A size to build from scratch, a local folder, a hub name, or "egm-tiny".
        from_scratch: Build `name` with random weights instead of loading it.
        dtype: Type of the weights. "bfloat16" takes a quarter of the memory of "float32" with its optimiser's state.
        freeze: Parts that stay as they are; "embeddings" are the language model's, with a head tied to them.
        lora: Train an adapter, and leave all other weights as they are.
    """

    name: str
    from_scratch: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    freeze: tuple[Part, ...] = ()
    lora: LoraSection | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> ModelSection:
        if self.lora is None:
            if set(get_args(Part)) - set(self.freeze) <= {"embeddings"}:
                raise ValueError("freeze names every part, so nothing is left to train: leave one out, or set lora")
            return self
        if self.freeze:
            raise ValueError("with lora all weights are frozen: leave freeze out, and name in lora.full what is not")
        if self.from_scratch:
            raise ValueError("lora adapts weights that have learnt something: set from_scratch to false")
        return self


class SourceSection(_Section):
    """One of several sources of training data.

    Attributes:
        name: `synthref/train`, `synthref/train-complex` or another split, such as `refcoco/train`; or give `path`.
        path: A file of any format that `egm.datasets.open_dataset` reads.
        weight: How often it is drawn from, relative to the other sources.
        images: Folder that holds its images; by default that of the whole section.
    """

    name: str | None = None
    path: Path | None = None
    weight: float = Field(default=1.0, gt=0)
    images: Path | None = None

    @model_validator(mode="after")
    def _one_place(self) -> SourceSection:
        if (self.name is None) == (self.path is None):
            raise ValueError("a source needs either a name or a path")
        return self

    @property
    def place(self) -> str:
        """The name or the path."""
        return str(self.name if self.path is None else self.path)


_ONE, _SEVERAL = "one source", "several sources"


class DataSection(_Section):
    """What it is trained on.

    Attributes:
        train: `synthref/train`, `synthref/train-complex` (more relations), or a file of any format that
            `egm.datasets.open_dataset` reads; or a list of sources, which are mixed by weight.
        images: Folder that holds the images; for a `.jsonl` file its own folder by default.
        scenes: How many scenes of a training split of SynthRef, before they repeat.
        phrases: Samples a scene of SynthRef, at most: fewer show more scenes, and take longer to make.
        rationale: How SynthRef's rationales refer to objects: "candidates", "inventory" or "unboxed".
        thinking: Train on the rationale and the box; without, on the box alone.
        prompt: Prompt style of the codec; its own default if not given.
        max_length: Longest sequence in tokens; a longer sample is an error that names it.
    """

    train: Annotated[
        Annotated[str, Tag(_ONE)] | Annotated[tuple[SourceSection, ...], Field(min_length=1), Tag(_SEVERAL)],
        Discriminator(lambda value: _SEVERAL if isinstance(value, list | tuple) else _ONE),
    ] = "synthref/train"
    images: Path | None = None
    scenes: int = Field(default=1_000_000, ge=1)
    phrases: int = Field(default=4, ge=1, le=4)
    rationale: Style = "candidates"
    thinking: bool = True
    prompt: str | None = None
    max_length: int = Field(default=1024, ge=64)

    @property
    def sources(self) -> tuple[SourceSection, ...]:
        """The sources of `train`, also where it names one only."""
        return (SourceSection(name=self.train),) if isinstance(self.train, str) else self.train


class OptimSection(_Section):
    """How it is trained.

    Attributes:
        steps: Optimiser steps; give these or `epochs`.
        epochs: Passes over the data.
        batch_size: Samples a step, over all processes.
        accumulation: Forward passes a step; `batch_size` is split among processes and passes.
        optimizer: "adamw", or "muon" for the inner matrices with AdamW for the rest, which learns faster from scratch;
            Muon needs whole matrices, so not under FSDP or DeepSpeed.
        learning_rate: Peak rate.
        schedule: How the rate falls after the warm-up.
        warmup_steps: Steps of linear warm-up; below 1, the share of all steps.
        weight_decay: Decoupled weight decay.
        beta2: AdamW's second moment decay.
        max_grad_norm: Gradients are clipped to this norm.
        precision: "bf16" computes in bfloat16 on a GPU.
        rounding: How AdamW rounds bfloat16 weights. "nearest" loses steps that are smaller than a 512th of a weight;
            "stochastic" keeps them on average.
        recompute: Share of the layers that keep no activations and compute them again on the way back.
    """

    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=256, ge=1)
    accumulation: int = Field(default=1, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(default=1e-5, gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup_steps: float = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    beta2: float = Field(default=0.999, gt=0, lt=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    precision: Literal["bf16", "float32"] = "bf16"
    rounding: Literal["nearest", "stochastic"] = "nearest"
    recompute: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _know_the_end(self) -> OptimSection:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"{'key steps is missing' if self.steps is None else 'two ends'}: give steps or epochs")
        return self


class EvalSection(_Section):
    """What is measured on held-out samples while training, beside the training loss.

    Attributes:
        data: A named split such as `synthref/val`, or a file that `egm.datasets.open_dataset` reads.
        images: Folder that holds the images.
        every: Steps between two evaluations; there is one at the end too.
        samples: How many of the first samples the loss is taken over; 0 takes none.
        greedy: How many of the first samples are answered greedily, for Acc@0.5 and mean IoU; 0 answers none.
        max_new_tokens: Where such an answer is cut off.
    """

    data: str
    images: Path | None = None
    every: int = Field(default=500, ge=1)
    samples: int = Field(default=256, ge=0)
    greedy: int = Field(default=0, ge=0)
    max_new_tokens: int = Field(default=512, ge=1)


class RunSection(_Section):
    """How the run goes about it.

    Attributes:
        seed: Of weights, data order and everything else random.
        workers: Processes that make batches; 0 makes them in the trainer.
        fast_path: Use `egm.models.fast.enable`: the same arithmetic in fewer and larger kernels.
        flatten: Lay the sequences of a batch end to end, so that nothing is padding, and compute the output layer for
            the answers alone: right for models of a large vocabulary. Needs `fast_path`.
        compile: Compile the layers, which takes half a minute and makes a small model several times faster on a GPU.
        log_every: Steps between two lines of the log.
        save_every: Steps between two checkpoints.
        report_to: "none", "tensorboard" or "wandb".
    """

    seed: int = 0
    workers: int = Field(default=0, ge=0)
    fast_path: bool = True
    flatten: bool = False
    compile: bool = False
    log_every: int = Field(default=50, ge=1)
    save_every: int = Field(default=1000, ge=1)
    report_to: Literal["none", "tensorboard", "wandb"] = "none"

    @model_validator(mode="after")
    def _flatten_on_the_fast_path(self) -> RunSection:
        if self.flatten and not self.fast_path:
            raise ValueError("flatten needs fast_path: the stock vision tower takes no other sequences than its own")
        return self


class SFTRecipe(_Section):
    """A whole recipe for `egm sft`."""

    stage: Literal["sft"] = "sft"
    model: ModelSection
    data: DataSection = DataSection()
    optim: OptimSection
    run: RunSection = RunSection()
    eval: EvalSection | None = None


_STAGES = ("sft", "grpo", "reproduce")
"""What a recipe may say it is of, each the name of a command."""

AnyRecipe = TypeVar("AnyRecipe", bound=_Section)


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> SFTRecipe:
    """Read a recipe of `egm sft`; see `load_recipe_as`."""
    return load_recipe_as(SFTRecipe, path, overrides)


def load_recipe_as(kind: type[AnyRecipe], path: str | Path, overrides: list[str] | None = None) -> AnyRecipe:
    """Read a recipe.

    Args:
        kind: What stage the recipe is of.
        path: YAML file.
        overrides: Settings such as `optim.steps=100`, which take precedence over the file.

    Raises:
        RecipeError: If the file cannot be read, is of another stage, or a key or value is wrong: it is named, with the
            nearest right one.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"no recipe at {path}: check the path, or start from one in recipes/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where is not None else ""
        raise RecipeError(f"recipe {path} is not YAML{line}: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"recipe {path} must hold keys such as model: and optim:, not a {type(content).__name__}")
    stage, own = content.get("stage"), kind.model_fields["stage"].default
    if stage in _STAGES and stage != own:  # its keys would only be unknown ones
        raise RecipeError(f"recipe {path} is one of egm {stage}, not of egm {own}: run egm {stage} {path}")
    for setting in overrides or []:
        override(content, setting)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"recipe {path}: {explain(error, kind)}") from None


def dump_recipe(recipe: _Section) -> str:
    """Write a recipe with every default filled in, as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def override(content: dict[str, Any], setting: str) -> None:
    """Put a setting such as `optim.steps=100` into the content of a recipe, in place.

    Raises:
        RecipeError: If it is not of that form.
    """
    key, found, value = setting.partition("=")
    if not found:
        raise RecipeError(f"setting {setting!r} is not of the form section.key=value")
    *sections, last = key.strip().split(".")
    for section in sections:
        inner = content.get(section) or {}
        if not isinstance(inner, dict):
            raise RecipeError(f"setting {setting!r}: {section} is not a section of the recipe")
        content[section] = inner
        content = inner
    try:
        content[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"setting {setting!r}: the value is not YAML") from None


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """Word the first fault in one line, with the nearest right key for a wrong one.

    Args:
        error: What pydantic found.
        kind: What it looked at.
    """
    # A misspelt key explains a missing one, so it comes first.
    fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    place = [part for part in fault["loc"] if part not in (_ONE, _SEVERAL)]
    name = ".".join(str(part) for part in place)
    if fault["type"] == "extra_forbidden":
        known = list(_section_at(kind, place[:-1]).model_fields)
        near = closest(str(place[-1]), known, cutoff=0.6)
        hint = f"did you mean {near!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {name!r}; {hint}"
    if fault["type"] == "value_error":
        return f"{name}: {fault['ctx']['error']}" if name else str(fault["ctx"]["error"])
    if fault["type"] == "missing":
        return f"key {name!r} is missing"
    if fault["type"] == "union_tag_invalid":
        return f"{name}: unknown kind {fault['ctx']['tag']!r}; known kinds: {fault['ctx']['expected_tags']}"
    return f"{name}: {fault['msg'][:1].lower()}{fault['msg'][1:]}, not {fault['input']!r}"


def _section_at(kind: Any, path: list[Any]) -> Any:
    """Find the section that a fault's place leads to, through optional sections, lists and kinds."""
    for part in path:
        if hasattr(kind, "model_fields") and part in kind.model_fields:
            kind = kind.model_fields[part].annotation
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif isinstance(part, str):  # the tag of one of several kinds
            kind = next(k for k in _sections(kind) if part in get_args(k.model_fields["kind"].annotation))
    return _sections(kind)[0]


def _sections(annotation: Any) -> list[Any]:
    """List the section classes in an annotation."""
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]
