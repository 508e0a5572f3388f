"""Arms: each section of the recipe with the defaults, checked as the recipe that `egm sft` or `egm grpo` will get.

An arm is trained once, or once for each of its seeds; each of these trainings has a folder and an evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from egm.errors import RecipeError, nearest
from egm.models import PRESETS
from egm.reproduce.recipe import ArmSection, ReproduceRecipe
from egm.training.grpo.recipe import GRPORecipe
from egm.training.recipe import explain, override
from egm.training.sft.recipe import SFTRecipe

_EQUAL = (
    *("data.train", "data.images", "data.scenes", "data.phrases"),
    *("optim.steps", "optim.epochs", "optim.batch_size"),
)
"""What decides, beside the seed, which samples a fine-tuning sees, and in which order."""
_WRITTEN, _REASONING = 8.0, 1.2
"""What an answer that reinforcement writes, and a target with reasoning, takes against a box that is learnt, by the
rates in docs/reproduce.md."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A model to train.

    Attributes:
        name: Its name.
        recipe: How it is trained; with a parent, `model.name` is the parent's name.
        parent: The arm that it starts from.
        root: The arm at the beginning of its line, itself without a parent.
        against: For an ablation, what it is compared with.
        seeds: The seeds that it is trained with; none for one training with the seed of `recipe`.
    """

    name: str
    recipe: SFTRecipe | GRPORecipe
    parent: Arm | None = None
    against: str | None = None
    seeds: tuple[int, ...] = ()

    @property
    def trainings(self) -> tuple[Training, ...]:
        """Its trainings, in the order of the seeds."""
        return tuple(Training(self, seed) for seed in self.seeds) or (Training(self),)

    @property
    def root(self) -> Arm:
        """The first of its line."""
        return self if self.parent is None else self.parent.root

    @property
    def parameters(self) -> int | None:
        """How many it has; None where the name of what it starts from does not tell."""
        from egm.report.run_tables import parameters_of

        return parameters_of(self.root.recipe.model.name)

    @property
    def thinks(self) -> bool | None:
        """Whether it was taught to think before it answers; None where it starts from a model that the recipe names."""
        if isinstance(self.recipe, SFTRecipe):
            return self.recipe.data.thinking
        return None if self.parent is None else self.parent.thinks

    @property
    def steps(self) -> int | None:
        """Optimiser steps; None where epochs are given."""
        return self.recipe.optim.steps

    @property
    def samples(self) -> int | None:
        """Samples that it learns from; with reinforcement, the prompts."""
        optim = self.recipe.optim
        if isinstance(self.recipe, SFTRecipe):
            return None if optim.steps is None else optim.steps * self.recipe.optim.batch_size
        passes = self.recipe.optim.updates * self.recipe.optim.iterations
        return -(-self.recipe.optim.steps // passes) * self.recipe.optim.prompts

    @property
    def work(self) -> float:
        """How long a training takes against others, roughly; what is not known is taken for long."""
        if self.parameters is None or self.samples is None:
            return math.inf
        written = 1.0 if isinstance(self.recipe, SFTRecipe) else _WRITTEN * self.recipe.rollout.group
        return self.parameters * self.samples * written * (_REASONING if self.thinks else 1.0)


@dataclass(frozen=True, slots=True)
class Training:
    """One training of an arm.

    Attributes:
        arm: The arm.
        seed: Which of its seeds; None where the arm names none.
    """

    arm: Arm
    seed: int | None = None

    @property
    def name(self) -> str:
        """The arm's name, with the seed if it names any; that of the folder."""
        return self.arm.name if self.seed is None else f"{self.arm.name}.seed{self.seed}"

    @property
    def parent(self) -> Training | None:
        """The training that it goes on from."""
        return None if self.arm.parent is None else Training(self.arm.parent, self.seed)

    @property
    def recipe(self) -> SFTRecipe | GRPORecipe:
        """How it is trained, see `Arm.recipe`; with its own seed."""
        made = self.arm.recipe
        if self.parent is not None:
            made = made.model_copy(update={"model": made.model.model_copy(update={"name": self.parent.name})})
        if self.seed is None:
            return made
        seed = self.seed if self.parent is None else self.seed + made.run.seed
        return made.model_copy(update={"run": made.run.model_copy(update={"seed": seed})})

    def starting_from(self, model: Path | None) -> SFTRecipe | GRPORecipe:
        """The recipe with the parent's trained model filled in."""
        made = self.recipe
        if model is None:
            return made
        return made.model_copy(update={"model": made.model.model_copy(update={"name": str(model)})})


def trainings_of(arms: Iterable[Arm]) -> dict[str, Training]:
    """All trainings of arms, by name."""
    return {training.name: training for arm in arms for training in arm.trainings}


def resolve(recipe: ReproduceRecipe, ablations: Sequence[str] = ()) -> dict[str, Arm]:
    """Make the arms of a recipe, parents first.

    Args:
        recipe: The recipe.
        ablations: Which ablations to add; those that they start from come with them.

    Raises:
        RecipeError: If an arm's settings do not fit, there is no such ablation, or fine-tunings see different data.
    """
    sections = recipe.arms | recipe.ablations
    for name in ablations:
        if name not in recipe.ablations:
            raise RecipeError(f"there is no ablation {name!r}: {nearest(name, tuple(recipe.ablations))}")
    arms: dict[str, Arm] = {}

    def add(name: str) -> Arm:
        if name not in arms:
            section = sections[name]
            parent = None if section.parent is None else add(section.parent)
            seeds = section.seeds or (() if parent is None else parent.seeds)
            if parent is not None and (lost := [seed for seed in seeds if seed not in parent.seeds]):
                raise RecipeError(f"arm {name}: it starts from {parent.name}, which is not trained with seed {lost[0]}")
            arms[name] = Arm(name, _checked(recipe, name, section), parent, section.against, seeds)
        return arms[name]

    for name in (*recipe.arms, *ablations):
        add(name)
    _check_equal_data(arm for arm in arms.values() if isinstance(arm.recipe, SFTRecipe) and arm.parent is None)
    _check_roles(recipe, arms)
    return arms


def _checked(recipe: ReproduceRecipe, name: str, section: ArmSection) -> SFTRecipe | GRPORecipe:
    kind = SFTRecipe if section.stage == "sft" else GRPORecipe
    content: dict[str, Any] = deepcopy(recipe.defaults.sft if section.stage == "sft" else recipe.defaults.grpo)
    try:
        for setting in section.set:
            override(content, setting)
        if section.parent is not None:
            model = content.get("model") or {}
            if not isinstance(model, Mapping) or model.keys() & {"name", "from_scratch"}:
                raise RecipeError(f"it starts from {section.parent}: leave model.name and model.from_scratch out")
            content["model"] = {**model, "name": section.parent}
        made: SFTRecipe | GRPORecipe = kind.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"arm {name}: {explain(error, kind)}") from None
    except RecipeError as error:
        raise RecipeError(f"arm {name}: {error}") from None
    if made.model.lora is not None:
        raise RecipeError(f"arm {name}: model.lora leaves an adapter, which cannot be timed as a model: leave it out")
    if made.model.from_scratch and made.model.name not in PRESETS:
        raise RecipeError(
            f"arm {name}: there is no model size {made.model.name!r}: {nearest(made.model.name, tuple(PRESETS))}"
        )
    return made


def _check_equal_data(arms: Iterable[Arm]) -> None:
    """Refuse fine-tunings that see other samples than the first, or in another order."""
    first: Arm | None = None
    shared = set[int]()
    for arm in arms:
        first = first or arm
        seeds = [each.recipe.run.seed for each in arm.trainings]
        if arm is first:
            shared = set(seeds)
        elif not shared & set(seeds):
            theirs, ours = (", ".join(map(str, numbers)) for numbers in (sorted(shared), seeds))
            raise RecipeError(
                f"arms {first.name} and {arm.name} do not see equal data: no run.seed is in both {theirs} and {ours}: "
                "give them seeds of which one at least is the same"
            )
        shared &= set(seeds)
        for key in _EQUAL:
            section, name = key.split(".")
            theirs, ours = (getattr(getattr(each.recipe, section), name) for each in (first, arm))
            if theirs != ours:
                raise RecipeError(
                    f"arms {first.name} and {arm.name} do not see equal data: {key} is {theirs} and {ours}: set it in "
                    "defaults.sft alone"
                )


def _check_roles(recipe: ReproduceRecipe, arms: Mapping[str, Arm]) -> None:
    for name, role in recipe.roles.names.items():
        arm = arms[name]
        if role == "reinforced":
            if isinstance(arm.recipe, SFTRecipe) or arm.parent is not arms[recipe.roles.thinking]:
                raise RecipeError(
                    f"roles.reinforced: {name} must be a grpo arm with parent {recipe.roles.thinking}, the thinking one"
                )
        elif arm.thinks is not (thinking := role.endswith("thinking")) or not isinstance(arm.recipe, SFTRecipe):
            wanted = "true" if thinking else "false"
            raise RecipeError(f"roles.{role}: {name} must be an sft arm with data.thinking {wanted}")
    for direct, same in recipe.roles.large_thinking.items():
        theirs, ours = (arms[name].recipe.model.name for name in (direct, same))
        if theirs != ours:
            raise RecipeError(f"roles.large_thinking: {direct} is {theirs} and {same} {ours}: name the same model")
