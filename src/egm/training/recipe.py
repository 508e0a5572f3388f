"""Recipes: one YAML file a run, every key checked, the nearest right one named when a key is wrong.

What a key means stands under it as a docstring, from where `egm sft --keys`, `egm grpo --keys` and docs/recipes.md have
it (`egm.training.keys`). Here are the reader and the sections that several stages share; each stage has its own beside
it.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from egm.errors import RecipeError, closest
from egm.training.yaml_reader import NotYamlError, read_yaml, read_yaml_file, shortened
from egm.types import Expect

Part = Literal["vision_tower", "projector", "language_model", "embeddings"]
"""A part of a model that can be frozen: the projector is the merger and the deepstack mergers."""


_LARGEST = 2**32 - 1
"""Largest whole number in a recipe: the largest seed that NumPy takes, and more than any count could be."""
_POWER_OF_TEN = re.compile(r"[-+]?[0-9]{1,20}(\.[0-9]{0,20})?[eE][-+]?[0-9]{1,3}")


class Section(BaseModel):
    """A section of a recipe: frozen, no unknown keys, the docstring under a key is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _of_their_sorts(cls, content: Any) -> Any:
        """Refuse what pydantic would turn into another sort: true is no number, and neither 1 nor "yes" is true."""
        faults = []
        for name, value in content.items() if isinstance(content, dict) else ():
            if name in cls.model_fields and (says := _other_sort(value, cls.model_fields[name].annotation)):
                wrong = PydanticCustomError("sort", "input should be {sort}", {"sort": says})
                faults.append(InitErrorDetails(type=wrong, loc=(name,), input=value))
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return content


def _other_sort(value: Any, annotation: Any) -> str | None:
    """Say what a value should be that is of another sort than its key."""
    sorts = _plain_sorts(annotation)
    numbers = sorts & {int, float}
    if bool in sorts and not (isinstance(value, bool) or value is None):
        return "true or false"
    if numbers and isinstance(value, bool):
        return "a number"
    # YAML takes 1e-5, without a point, for a text.
    if numbers and isinstance(value, str) and not (float in numbers and _POWER_OF_TEN.fullmatch(value)):
        return "a number"
    return f"at most {_LARGEST}" if int in numbers and isinstance(value, int) and value > _LARGEST else None


def _plain_sorts(annotation: Any) -> set[Any]:
    """Return what of `bool`, `int`, `float` and `str` an annotation takes by itself, not in a list."""
    if hasattr(annotation, "__metadata__") or get_origin(annotation) in (Union, UnionType):
        parts = get_args(annotation)[:1] if hasattr(annotation, "__metadata__") else get_args(annotation)
        return {sort for part in parts for sort in _plain_sorts(part)}
    return {annotation} & {bool, int, float, str}


class LoraSection(Section):
    """A low-rank adapter (Hu et al., 2021, arXiv 2106.09685) on frozen weights."""

    rank: int = Field(default=64, ge=1)
    """Rank of the two factors."""
    alpha: float = Field(default=128.0, gt=0)
    """The product of the factors is scaled by `alpha / rank`."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the first factor."""
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that get one: the last part, such as `qkv`, or more of it, such as `attn.proj` or
    `blocks.0.attn.proj`. The default is every one of a dense Qwen3-VL's or Qwen2.5-VL's language model; experts are no
    linear layers, and Qwen3.5's linear attention has `in_proj_qkv`, `in_proj_z` and `out_proj`."""
    full: tuple[Literal["projector"], ...] = ()
    """Parts that are trained whole beside the adapter."""


class ModelSection(Section):
    """What is trained."""

    name: str
    """A size to build from scratch, a local folder, a hub name, or `egm-tiny`."""
    from_scratch: bool = False
    """Build `name` with random weights instead of loading it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights. `bfloat16` takes half the memory of `float32`, with the optimiser's state too."""
    freeze: tuple[Part, ...] = ()
    """Parts that stay as they are; `embeddings` are the language model's, with a head tied to them."""
    lora: LoraSection | None = None
    """Train an adapter, and leave all other weights as they are."""

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


class SourceSection(Section):
    """One of several sources of training data."""

    name: str | None = None
    """`synthref/train`, `synthref/train-complex` or another split, such as `refcoco/train`; or give `path`."""
    path: Path | None = None
    """A file of any format that `egm.datasets.open_dataset` reads."""
    weight: float = Field(default=1.0, gt=0)
    """How often it is drawn from, relative to the other sources."""
    images: Path | None = None
    """Folder that holds its images; by default that of the whole section."""
    expect: Expect | None = None
    """How many boxes to ask for, in place of what its samples expect: `any` asks about one box and allows the answer
    that nothing matches, so that a model is not only asked so where there is nothing."""

    @model_validator(mode="after")
    def _one_place(self) -> SourceSection:
        if self.name is None and self.path is None:
            raise ValueError("a source needs either a name or a path")
        if self.name is not None and self.path is not None:
            raise ValueError("both name and path are given: a source is one of the two, so leave one out")
        return self

    @property
    def place(self) -> str:
        """The name or the path."""
        return str(self.name if self.path is None else self.path)


_ONE, _SEVERAL = "one of them", "several of them"


def _count_of(value: Any) -> str:
    return _SEVERAL if isinstance(value, list | tuple) else _ONE


Sources: TypeAlias = Annotated[
    Annotated[str, Tag(_ONE)] | Annotated[tuple[SourceSection, ...], Field(min_length=1), Tag(_SEVERAL)],
    Discriminator(_count_of),
]
"""One source by its name or path, or several that are mixed by weight."""

Prompts: TypeAlias = Annotated[
    Annotated[str, Tag(_ONE)] | Annotated[tuple[str, ...], Field(min_length=1), Tag(_SEVERAL)],
    Discriminator(_count_of),
]
"""One prompt style, or several of which each sample is asked in one."""


class RunSection(Section):
    """How the run goes about it."""

    seed: int = Field(default=0, ge=0)
    """Seed of weights, data order and everything else random."""
    workers: int = Field(default=0, ge=0)
    """Processes that make batches; 0 makes them in the trainer."""
    fast_path: bool = True
    """Use `egm.models.fast.enable`, which is for Qwen3-VL: the same arithmetic in fewer and larger kernels. Other
    families are trained as the library has them."""
    flatten: bool = False
    """Lay the sequences of a batch end to end, so that nothing is padding, and compute the output layer for the answers
    alone: right for models of a large vocabulary. Needs `fast_path`, and so a Qwen3-VL model; `egm sft` only."""
    compile: bool = False
    """Compile the layers of a Qwen3-VL model, which takes half a minute and makes a small one several times faster on a
    GPU."""
    log_every: int = Field(default=50, ge=1)
    """Steps between two lines of the log."""
    save_every: int = Field(default=1000, ge=1)
    """Steps between two checkpoints."""
    report_to: Literal["none", "tensorboard", "wandb"] = "none"
    """Where the log goes beside `log.jsonl`."""

    @model_validator(mode="after")
    def _flatten_on_the_fast_path(self) -> RunSection:
        if self.flatten and not self.fast_path:
            raise ValueError("flatten needs fast_path: the stock vision tower takes no other sequences than its own")
        return self


_ALSO_CALLED = {
    **dict.fromkeys(("preset", "size", "path", "checkpoint", "model"), "name"),
    "lr": "learning_rate",
    "wd": "weight_decay",
    "r": "rank",
    "target_modules": "modules",
}
"""What other tools call keys of recipes."""

_STAGES = ("sft", "grpo", "reproduce")
"""What a recipe may say it is of, each the name of a command."""

AnyRecipe = TypeVar("AnyRecipe", bound=Section)


def load_recipe(kind: type[AnyRecipe], path: str | Path, overrides: list[str] | None = None) -> AnyRecipe:
    """Read a recipe.

    Args:
        kind: What stage the recipe is of.
        path: YAML file.
        overrides: Settings such as `optim.steps=100`, which take precedence over the file.

    Raises:
        RecipeError: If the file cannot be read, is of another stage, or a key or value is wrong: it is named, with the
            nearest right one, or all that are known.
    """
    path = Path(path)
    missing = f"no recipe at {path}: check the path, or start from one in recipes/"
    content = read_yaml_file(path, "recipe", missing=missing)
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


def dump_recipe(recipe: Section) -> str:
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
        content[last] = read_yaml(value)
    except NotYamlError as fault:
        raise RecipeError(f"setting {shortened(setting)}: the value {fault}") from None


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
        near = _meant(str(place[-1]), known, kind)
        hint = f"did you mean {near!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {shortened(name)}; {hint}"
    if fault["type"] == "value_error":
        return f"{name}: {fault['ctx']['error']}" if name else str(fault["ctx"]["error"])
    if fault["type"] == "missing":
        return f"key {name!r} is missing"
    if fault["type"] == "union_tag_invalid":
        return f"{name}: unknown kind {fault['ctx']['tag']!r}; known kinds: {fault['ctx']['expected_tags']}"
    return f"{name}: {_should_be(fault, kind, place)}, not {shortened(fault['input'])}"


def _should_be(fault: ErrorDetails, kind: type[BaseModel], place: list[Any]) -> str:
    """Say what a value should be: in pydantic's words where they speak of recipes, and not of its own classes."""
    if fault["type"] == "too_short":
        return f"input should have at least {fault['ctx']['min_length']} entry"
    if fault["type"] == "model_type":
        return f"input should have keys such as {next(iter(_section_at(kind, place).model_fields))}:"
    if fault["type"] == "string_type" and fault["loc"][-1] == _ONE:
        with_keys = isinstance(fault["input"], dict) and fault["input"].keys() <= SourceSection.model_fields.keys()
        return "a source with keys should be put in a list, [{…}]" if with_keys else "input should be text, or a list"
    return f"{fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _meant(key: str, known: list[str], kind: type[BaseModel]) -> str | None:
    """Return the key that an unknown one was probably meant to be: of its section, or the same key of another."""
    called = _ALSO_CALLED.get(key.lower())
    if called in known:
        return called
    if near := closest(key, known, cutoff=0.6):
        return near
    for section, field in kind.model_fields.items():
        if any(key in inner.model_fields for inner in _sections(field.annotation)):
            return f"{section}.{key}"
    return None


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
