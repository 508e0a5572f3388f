"""Recipes: one YAML file a run, every key checked, the nearest right one named when a key is wrong."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from egm.errors import RecipeError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSection(_Section):
    """What is trained.

    Attributes:
        name: A size to build from scratch, a local folder, a hub name, or "egm-tiny".
        from_scratch: Build `name` with random weights instead of loading it.
    """

    name: str
    from_scratch: bool = False


class SourceSection(_Section):
    """One of several sources of training data.

    Attributes:
        name: `synthref/train`, or the name of a split such as `refcoco/train`; or give `path`.
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
        train: `synthref/train`, or a file of any format that `egm.datasets.open_dataset` reads; or a list of sources,
            which are mixed by weight.
        images: Folder that holds the images; for a `.jsonl` file its own folder by default.
        scenes: How many scenes of `synthref/train`, before they repeat.
        rationale: How SynthRef's rationales refer to objects: "candidates" or "inventory".
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
    rationale: Literal["candidates", "inventory"] = "candidates"
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
        steps: Optimiser steps.
        batch_size: Samples a step on each process.
        accumulation: Forward passes a step; `batch_size` is split among them.
        optimizer: "adamw", or "muon" for the inner matrices with AdamW for the rest, which learns faster from scratch.
        learning_rate: Peak rate.
        schedule: How the rate falls after the warm-up.
        warmup_steps: Steps of linear warm-up.
        weight_decay: Decoupled weight decay.
        beta2: AdamW's second moment decay.
        max_grad_norm: Gradients are clipped to this norm.
        precision: "bf16" trains under autocast with float32 weights.
    """

    steps: int = Field(ge=1)
    batch_size: int = Field(default=256, ge=1)
    accumulation: int = Field(default=1, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(default=1e-5, gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    beta2: float = Field(default=0.999, gt=0, lt=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    precision: Literal["bf16", "float32"] = "bf16"


class RunSection(_Section):
    """How the run goes about it.

    Attributes:
        seed: Of weights, data order and everything else random.
        workers: Processes that make batches; 0 makes them in the trainer.
        fast_path: Use `egm.models.fast`: the same arithmetic in fewer and larger kernels.
        compile: Compile the layers, which takes half a minute and makes a small model several times faster on a GPU.
        log_every: Steps between two lines of the log.
        save_every: Steps between two checkpoints.
        report_to: "none", "tensorboard" or "wandb".
    """

    seed: int = 0
    workers: int = Field(default=0, ge=0)
    fast_path: bool = True
    compile: bool = False
    log_every: int = Field(default=50, ge=1)
    save_every: int = Field(default=1000, ge=1)
    report_to: Literal["none", "tensorboard", "wandb"] = "none"


class SFTRecipe(_Section):
    """A whole recipe for `egm sft`."""

    stage: Literal["sft"] = "sft"
    model: ModelSection
    data: DataSection = DataSection()
    optim: OptimSection
    run: RunSection = RunSection()


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> SFTRecipe:
    """Read a recipe.

    Args:
        path: YAML file.
        overrides: Settings such as `optim.steps=100`, which take precedence over the file.

    Raises:
        RecipeError: If the file cannot be read, or a key or value is wrong: it is named, with the nearest right one.
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
    for override in overrides or []:
        _override(content, override)
    try:
        return SFTRecipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"recipe {path}: {_explain(error)}") from None


def dump_recipe(recipe: SFTRecipe) -> str:
    """Write a recipe with every default filled in, as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _override(content: dict[str, Any], override: str) -> None:
    key, found, value = override.partition("=")
    if not found:
        raise RecipeError(f"setting {override!r} is not of the form section.key=value")
    *sections, last = key.strip().split(".")
    for section in sections:
        inner = content.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"setting {override!r}: {section} is not a section of the recipe")
        content = inner
    try:
        content[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"setting {override!r}: the value is not YAML") from None


def _explain(error: ValidationError) -> str:
    """Word the first fault in one line, with the nearest right key for a wrong one."""
    # A misspelt key explains a missing one, so it comes first.
    fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    *above, key = [part for part in fault["loc"] if part not in (_ONE, _SEVERAL)]
    name = ".".join(str(part) for part in (*above, key))
    if fault["type"] == "extra_forbidden":
        section: Any = SFTRecipe
        for part in above:
            section = SourceSection if isinstance(part, int) else section.model_fields[part].annotation
        known = list(section.model_fields)
        near = difflib.get_close_matches(str(key), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {name!r}; {hint}"
    if fault["type"] == "missing":
        return f"key {name!r} is missing"
    return f"{name}: {fault['msg'][:1].lower()}{fault['msg'][1:]}, not {fault['input']!r}"
