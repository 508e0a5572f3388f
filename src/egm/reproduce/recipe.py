"""The recipe of `egm reproduce`: what all arms share, the arms, and what is measured of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from egm.errors import nearest
from egm.training.recipe import Section

Split = Literal["synthref/val", "synthref/test-simple", "synthref/test-complex", "synthref/test-amodal"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]  # it becomes a folder


class DefaultsSection(Section):
    """What all arms of a stage share: recipes of `egm sft` and `egm grpo`, without what the arms set themselves."""

    sft: dict[str, Any] = Field(default_factory=dict)
    """Keys of a recipe of `egm sft`."""
    grpo: dict[str, Any] = Field(default_factory=dict)
    """Keys of a recipe of `egm grpo`."""


Seed = Annotated[int, Field(ge=0)]


class ArmSection(Section):
    """One model to train, once or with several seeds."""

    stage: Literal["sft", "grpo"]
    """How it is trained."""
    parent: str | None = None
    """The arm whose trained model it starts from; without, `model` says."""
    set: tuple[str, ...] = ()
    """Settings over the defaults, such as `data.thinking=false`."""
    seeds: tuple[Seed, ...] = ()
    """Values of `run.seed`, for each of which it is trained and evaluated; with a parent they are the parent's
    trainings that it goes on from, and are added to `run.seed`, so that it asks other scenes than those. Not given, it
    is trained once, with the `run.seed` that it has, or from each training of its parent."""
    against: str | None = None
    """For an ablation, the arm that it is compared with."""


class RolesSection(Section):
    """Which arms play which part in the paper's claims."""

    direct: str
    """The small model that answers directly."""
    thinking: str
    """The small model that thinks, fine-tuned on rationales."""
    reinforced: str
    """The same after reinforcement."""
    large: tuple[str, ...] = Field(min_length=1)
    """Larger models that answer directly, the largest last."""
    large_thinking: dict[str, str] = Field(default_factory=dict)
    """Larger models that think, each by the name of the same model in `large`, which answers directly."""

    @property
    def names(self) -> dict[str, str]:
        """The part of each arm, by the arm's name; the same arm may not play two."""
        parts = {self.direct: "direct", self.thinking: "thinking", self.reinforced: "reinforced"}
        parts |= dict.fromkeys(self.large, "large")
        return parts | dict.fromkeys(self.large_thinking.values(), "large_thinking")


class EvaluateSection(Section):
    """What every arm is asked."""

    splits: tuple[Split, ...] = Field(
        default=("synthref/val", "synthref/test-simple", "synthref/test-complex", "synthref/test-amodal"), min_length=1
    )
    """The frozen splits."""
    scenes: int | None = Field(default=None, ge=1, le=500)
    """Only so many scenes of each split; all by default."""
    batch_size: int = Field(default=256, ge=1)
    """Questions answered together."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Where an answer is cut off."""


class LatencySection(Section):
    """How latency is measured: the same pictures and phrases of SynthRef val for every arm."""

    requests: int = Field(default=48, ge=2)
    """Questions asked one at a time."""
    warmup: int = Field(default=4, ge=0)
    """Questions before those, not measured."""
    batch_size: int = Field(default=64, ge=1)
    """Questions of a batch, for the load; as many are answered before, not measured."""
    batches: int = Field(default=3, ge=1)
    """Batches of the load."""
    seed: int = Field(default=0, ge=0)
    """Seed of the pictures."""

    @model_validator(mode="after")
    def _as_many_pictures(self) -> LatencySection:
        most = max(self.requests + self.warmup, self.batch_size * (self.batches + 1))
        if most > 500:
            raise ValueError(f"{most} requests need as many pictures, and SynthRef val has 500: ask fewer")
        return self


class ReproduceRecipe(Section):
    """A whole recipe for `egm reproduce`."""

    stage: Literal["reproduce"] = "reproduce"
    """The command that the recipe is for."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs; `auto` takes a GPU if there is one."""
    preflight: bool = True
    """Whether reinforcement looks at 16 rollouts before it trains."""
    defaults: DefaultsSection = DefaultsSection()
    """What the arms share."""
    arms: dict[Name, ArmSection] = Field(min_length=1)
    """The models to train, by name."""
    ablations: dict[Name, ArmSection] = Field(default_factory=dict)
    """Further ones, trained only if asked for."""
    roles: RolesSection
    """Which arms the claims are about."""
    evaluate: EvaluateSection = EvaluateSection()
    """What all are asked."""
    latency: LatencySection = LatencySection()
    """How they are timed."""

    @model_validator(mode="after")
    def _names_are_known(self) -> ReproduceRecipe:
        if twice := sorted(self.arms.keys() & self.ablations.keys()):
            raise ValueError(f"{twice[0]} is both an arm and an ablation: give one of them another name")
        arms, every = tuple(self.arms), (*self.arms, *self.ablations)
        for role, name in (
            ("direct", self.roles.direct),
            ("thinking", self.roles.thinking),
            ("reinforced", self.roles.reinforced),
            *(("large", name) for name in self.roles.large),
            *(("large_thinking", name) for name in self.roles.large_thinking.values()),
        ):
            _check_known(f"roles.{role}", name, arms)
        for name in self.roles.large_thinking:
            _check_known("roles.large_thinking", name, self.roles.large)
        if len(self.roles.names) < 3 + len(self.roles.large) + len(self.roles.large_thinking):
            raise ValueError("roles: an arm plays two parts: name four different arms at least")
        for kind, sections, known in (("arms", self.arms, arms), ("ablations", self.ablations, every)):
            for name, section in sections.items():
                _check_known(f"{kind}.{name}.parent", section.parent, known)
                if len(set(section.seeds)) < len(section.seeds):
                    raise ValueError(f"{kind}.{name}.seeds names a seed twice: name each once")
                if kind == "arms" and section.against is not None:
                    raise ValueError(f"arms.{name}.against: only ablations are compared this way: leave it out")
                if kind == "ablations" and section.against is None:
                    raise ValueError(f"ablations.{name}.against is missing: name the arm to compare it with")
                _check_known(f"{kind}.{name}.against", section.against, every)
                if section.against == name:
                    raise ValueError(f"{kind}.{name}.against is the arm itself: name another")
        self._end_somewhere()
        return self

    def _end_somewhere(self) -> None:
        sections = self.arms | self.ablations
        for name in sections:
            seen, at = [name], sections[name].parent
            while at is not None:
                if at in seen:
                    raise ValueError(f"{' starts from '.join([*seen, at])}: let one of them start from a model")
                seen.append(at)
                at = sections[at].parent


def _check_known(key: str, name: str | None, known: tuple[str, ...]) -> None:
    if name is not None and name not in known:
        raise ValueError(f"{key}: there is no arm {name!r}; {nearest(name, known)}")
