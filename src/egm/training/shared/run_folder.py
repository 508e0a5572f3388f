"""The run folder: the resolved recipe, what the run was, its log and its checkpoints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from egm.environment import cpu_name, gpu_name, package_versions
from egm.errors import RecipeError
from egm.files import write_text
from egm.training.recipe import Section, dump_recipe, load_recipe

STATE = "trainer_state.json"
"""What a checkpoint knows of the run; it is written last, so a checkpoint that has it is whole."""

_FREE = {"optim.accumulation", "optim.recompute", "run.workers", "run.log_every", "run.save_every", "run.report_to"}
"""What may differ when a run goes on: it changes nothing of what is learnt, but for the order of sums."""


def start_run(recipe: Section, out: Path, *, seed: int) -> None:
    """Make a run folder, with the resolved recipe and what the run is.

    Raises:
        RecipeError: If the folder holds a run already.
    """
    check_free(out)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "recipe.yaml", dump_recipe(recipe))
    versions = package_versions("torch", "transformers", "trl", "accelerate", "peft", "datasets")
    note(out, seed=seed, command=sys.argv, versions=versions, hardware=gpu_name() or cpu_name())


def check_free(out: Path) -> None:
    """Refuse a folder that holds a run.

    Raises:
        RecipeError: If it does.
    """
    if list(checkpoints_in(out)) or any((out / name).exists() for name in ("model", "adapter")):
        raise RecipeError(f"{out} holds a run already: go on with --resume, or choose another --out")


def last_checkpoint(recipe: Section, out: Path) -> Path:
    """Find the last whole checkpoint of a run; one that a kill cut off is passed over.

    Raises:
        RecipeError: If there is none, or the folder belongs to another recipe.
    """
    kept = out / "recipe.yaml"
    whole = [folder for folder in checkpoints_in(out) if is_whole(folder)]
    if not kept.exists() or not whole:
        raise RecipeError(f"nothing to resume in {out}: it holds no checkpoint; run without --resume")
    try:
        before = load_recipe(type(recipe), kept)
    except RecipeError as error:
        raise RecipeError(f"{out} holds another run: choose another --out ({error})") from None
    if differing := differences(before, recipe):
        raise RecipeError(
            f"{kept} differs from this recipe in {', '.join(differing)}: resume with the same one, or choose another "
            "--out"
        )
    return max(whole, key=_step)


def has_checkpoint(out: Path) -> bool:
    """Tell whether there is a whole checkpoint to go on from."""
    return any(map(is_whole, checkpoints_in(out)))


def trained(out: Path) -> Path | None:
    """Return the folder of the model or adapter that a run ended with; None if it has not ended."""
    try:
        ended = "steps" in json.loads((out / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return next((out / name for name in ("model", "adapter") if ended and (out / name).is_dir()), None)


def note(out: Path, **facts: Any) -> None:
    """Add facts to the run's `run.json`."""
    path = out / "run.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_text(path, json.dumps(known | facts, indent=2) + "\n")


def checkpoints_in(out: Path) -> list[Path]:
    """List the checkpoints of a run from the first to the last, whole or not."""
    return sorted((out / "checkpoints").glob("checkpoint-[0-9]*"), key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def is_whole(folder: Path) -> bool:
    """Tell whether a checkpoint was written to its end."""
    try:
        json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def differences(before: Section, now: Section) -> list[str]:
    """Return the keys whose values make another run of it, as `section.key`."""
    old, new = _by_key(before), _by_key(now)
    return sorted({key for key in old.keys() | new.keys() if old.get(key) != new.get(key)} - _FREE)


def _by_key(recipe: Section) -> dict[str, Any]:
    content = recipe.model_dump(mode="json")
    sections = {name: values for name, values in content.items() if isinstance(values, dict)}
    keys = {f"{name}.{key}": value for name, values in sections.items() for key, value in values.items()}
    return keys | {name: value for name, value in content.items() if name not in sections and value is not None}
