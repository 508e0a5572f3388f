"""The folder of a reproduction: what was settled, and for each training of an arm which stages are done.

NAME is the arm, or `ARM.seedK` where the recipe gives it seeds.

```
OUT/reproduce.yaml            the arms as they are trained, and what they are asked
OUT/arms/NAME/train.yaml      the recipe that egm sft or egm grpo got
OUT/arms/NAME/train/          its run folder, with the model
OUT/arms/NAME/evaluate/       the run folder of egm eval, with the journal
OUT/arms/NAME/STAGE.log       what the stage printed
OUT/arms/NAME/STAGE.json      that it is done, how long it took, and with which settings
OUT/latency.json              all arms, timed in one run
OUT/report/                   tables, figures, claims
```
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from egm.errors import EgmError, RecipeError
from egm.files import lock, write_text
from egm.reproduce.arms import Arm, trainings_of
from egm.reproduce.recipe import EvaluateSection, ReproduceRecipe
from egm.training.grpo.recipe import GRPORecipe
from egm.training.sft.recipe import SFTRecipe
from egm.training.shared.run_folder import differences, trained

Stage = Literal["train", "evaluate"]
_SETTLED = "reproduce.yaml"
_PATIENCE = 60.0  # seconds in which a training that lost its parent finishes its step and ends


def settle(out: Path, recipe: ReproduceRecipe, arms: Mapping[str, Arm]) -> None:
    """Write down what is reproduced, beside the ablations of earlier calls; refuse a folder that holds another.

    Raises:
        RecipeError: If the folder holds another reproduction; what differs is named.
    """
    known = check_settled(out, recipe, arms)
    ours = {
        name: {
            **({} if each.seed is None else {"arm": each.arm.name}),
            "stage": each.recipe.stage,
            "parent": None if each.parent is None else each.parent.name,
            "against": each.arm.against,
            "recipe": each.recipe.model_dump(mode="json"),
        }
        for name, each in trainings_of(arms.values()).items()
    }
    content = {"evaluate": recipe.evaluate.model_dump(mode="json"), "arms": known | ours}
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / _SETTLED, yaml.safe_dump(content, sort_keys=False))


def check_settled(out: Path, recipe: ReproduceRecipe, arms: Mapping[str, Arm]) -> dict[str, Any]:
    """Return the trainings that the folder knows; none if it is new.

    Raises:
        RecipeError: If it holds another reproduction, or something else.
    """
    path = out / _SETTLED
    if not path.exists():
        if out.is_dir() and any(out.iterdir()):
            raise RecipeError(f"{out} holds something else: choose another --out")
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        known: dict[str, Any] = content["arms"]
        before = EvaluateSection.model_validate(content["evaluate"])
        recipes = {name: _recipe(section) for name, section in known.items()}
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} is damaged ({type(error).__name__}): restore it, or choose another --out") from None
    differing = [
        f"evaluate.{key}" for key, value in before.model_dump().items() if getattr(recipe.evaluate, key) != value
    ]
    trainings = trainings_of(arms.values())
    for name in trainings.keys() & known.keys():
        theirs, ours, parent = known[name], trainings[name].recipe, trainings[name].parent
        if type(recipes[name]) is not type(ours) or theirs["parent"] != (parent and parent.name):
            differing.append(f"arms.{name}.{'stage' if theirs['parent'] == (parent and parent.name) else 'parent'}")
        else:
            differing += [f"arms.{name}.{key}" for key in differences(recipes[name], ours)]
    gone = [
        name for name, its in known.items() if name not in trainings and its.get("arm", name) not in recipe.ablations
    ]
    differing += [f"arms.{name}, which is gone" for name in gone]
    if differing:
        raise RecipeError(
            f"{out} holds another reproduction, which differs in {', '.join(sorted(differing))}: go on with the same "
            "recipe and settings, or choose another --out"
        )
    return known


def _recipe(section: Mapping[str, Any]) -> SFTRecipe | GRPORecipe:
    kind = SFTRecipe if section["stage"] == "sft" else GRPORecipe
    made: SFTRecipe | GRPORecipe = kind.model_validate(section["recipe"])
    return made


def settled_ablations(out: Path, recipe: ReproduceRecipe) -> list[str]:
    """List the ablations of earlier calls, which the report shows again."""
    path = out / _SETTLED
    if not path.exists():
        return []
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = dict.fromkeys(section.get("arm", name) for name, section in content["arms"].items())
    return [name for name in names if name in recipe.ablations]


class ArmFolder:
    """Where the stages of an arm's training lie, and which are done.

    Args:
        out: The folder of the reproduction.
        name: The training.
    """

    def __init__(self, out: Path, name: str) -> None:
        self.path = out / "arms" / name
        self.train, self.evaluate = self.path / "train", self.path / "evaluate"

    def log(self, stage: Stage) -> Path:
        """What a stage printed."""
        return self.path / f"{stage}.log"

    def is_done(self, stage: Stage) -> bool:
        """Whether a stage has ended well."""
        return (self.path / f"{stage}.json").exists()

    def finish(self, stage: Stage, settings: Any, seconds: float | None) -> None:
        """Note that a stage is done; `seconds` are those of its last piece."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        facts = {"stage": stage, "ended": now, "seconds": seconds, "settings": settings}
        write_text(self.path / f"{stage}.json", json.dumps(facts, indent=2) + "\n")

    @property
    def model(self) -> Path | None:
        """The trained model; None while there is none here."""
        return trained(self.train)

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Keep other processes from this arm. The lock is the file's, so it lasts while a child holds it open too.

        Yields:
            The number of the open file, for the child.

        Raises:
            EgmError: If another process has it for longer than a killed training takes to end.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a") as file:
            end = time.monotonic() + _PATIENCE
            while not lock(file.fileno()):
                if time.monotonic() > end:
                    raise EgmError(f"{self.path} is in use by another process: wait for it, or end it")
                time.sleep(0.1)
            yield file.fileno()
