"""The run folder: the resolved recipe, what the run was, its log, and the checkpoint to go on from."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from egm.environment import cpu_name, gpu_name, package_versions
from egm.errors import RecipeError
from egm.files import write_text
from egm.terminal import command_line
from egm.training.recipe import Section, dump_recipe, load_recipe
from egm.training.shared.checkpoints import STATE, advice, checkpoints_in, damage, is_whole, processes_of, sharded_by
from egm.training.shared.processes import is_first, process_count, sharding

_FREE = {
    *("optim.accumulation", "optim.recompute", "rollout.rows"),
    *("run.workers", "run.log_every", "run.save_every", "run.report_to"),
}
"""What may differ when a run goes on: it changes nothing of what is learnt, but for the order of sums."""

_log = logging.getLogger(__name__)


def start_run(recipe: Section, out: Path, *, seed: int) -> None:
    """Make a run folder, with the resolved recipe and what the run is.

    Raises:
        RecipeError: If the folder holds a run already.
    """
    check_free(out)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "recipe.yaml", dump_recipe(recipe))
    versions = package_versions("torch", "transformers", "trl", "accelerate", "peft", "datasets")
    facts = {"seed": seed, "command": list(command_line()), "versions": versions, "hardware": gpu_name() or cpu_name()}
    add_facts(out, **facts, sources=_sources(recipe))


def check_free(out: Path) -> None:
    """Refuse a folder that holds a run.

    Raises:
        RecipeError: If it does.
    """
    if list(checkpoints_in(out)) or any((out / name).exists() for name in ("model", "adapter")):
        raise RecipeError(f"{out} holds a run already: go on with --resume, or choose another --out")


def last_checkpoint(recipe: Section, out: Path) -> Path:
    """Find the last whole checkpoint of a run; one that a kill cut off is passed over, which is said.

    Raises:
        RecipeError: If there is none, it or `run.json` is damaged, this launch cannot load it, or the folder belongs to
            another recipe or to data that have changed since.
    """
    recipe_path = out / "recipe.yaml"
    checkpoints = checkpoints_in(out)
    whole = [folder for folder in checkpoints if is_whole(folder)]
    if not recipe_path.exists() or not whole:
        raise RecipeError(f"nothing to resume in {out}: it holds no checkpoint; run without --resume")
    try:
        before = load_recipe(type(recipe), recipe_path)
    except RecipeError as error:
        raise RecipeError(f"{out} holds another run: choose another --out ({error})") from None
    if differing := differences(before, recipe):
        raise RecipeError(
            f"{recipe_path} differs from this recipe in {', '.join(differing)}: resume with the same one, or choose "
            "another --out"
        )
    last = whole[-1]
    if fault := damage(last):
        raise RecipeError(f"{last} {fault}: {advice(last)}")
    _check_launch(last)
    known = _facts(out).get("sources")
    if isinstance(known, dict):  # runs of an earlier version did not say
        now_read = _sources(recipe)
        if changed := sorted(name for name in known.keys() & now_read.keys() if known[name] != now_read[name]):
            raise RecipeError(
                f"{', '.join(changed)} changed since {out} was started: resume with the data as it was, or choose "
                "another --out"
            )
    if checkpoints[-1] != last and is_first():
        _log.warning("%s has no %s that can be read: going on from %s", checkpoints[-1], STATE, last.name)
    return last


def _check_launch(last: Path) -> None:
    """Refuse a checkpoint whose layout this launch cannot load: FSDP deals its shards out anew, DeepSpeed does not."""
    written, now = sharded_by(last), sharding()
    if written != now:
        ways = [f"under {name}" if name else "without sharding" for name in (written, now)]
        raise RecipeError(
            f"{last} was written {ways[0]}, and this launch is {ways[1]}: resume with the launcher and the file of "
            "recipes/accelerate that the run was started with"
        )
    before, after = processes_of(last), process_count()
    if before == after:
        return
    if written == "DeepSpeed":
        raise RecipeError(
            f"{last} was written by {before} processes, and now there are {after}: DeepSpeed does not deal its "
            f"shards out anew, so resume with --num_processes {before}"
        )
    if is_first():
        _log.warning("%s was written by %d processes, and now there are %d: dropout begins anew", last, before, after)


def _sources(recipe: Section) -> dict[str, str]:
    """Return the digest of each file of rows that a recipe trains on; pictures are not looked at."""
    train = getattr(getattr(recipe, "data", None), "train", None)
    places = [train] if isinstance(train, str) else [source.place for source in train or ()]
    digests = {}
    for place in places:
        if Path(place).is_file():
            with Path(place).open("rb") as file:
                digests[place] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def has_checkpoint(out: Path) -> bool:
    """Tell whether there is a whole checkpoint to go on from."""
    return any(map(is_whole, checkpoints_in(out)))


def trained(out: Path) -> Path | None:
    """Return the folder of the model or adapter that a run ended with; None if it has not ended."""
    try:
        ended = "steps" in _facts(out)
    except RecipeError:
        return None
    return next((out / name for name in ("model", "adapter") if ended and (out / name).is_dir()), None)


def add_facts(out: Path, **facts: Any) -> None:
    """Add facts to the run's `run.json`.

    Raises:
        RecipeError: If it is damaged.
    """
    write_text(out / "run.json", json.dumps(_facts(out) | facts, indent=2) + "\n")


def _facts(out: Path) -> dict[str, Any]:
    """Read the run's `run.json`; nothing if there is none."""
    path = out / "run.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise RecipeError(f"{path} is cut off or no object of JSON: move it away, and the run can do without it")
    return facts


def differences(before: Section, now: Section) -> list[str]:
    """Return the keys whose values make another run of it, as `section.key`."""
    old, new = _by_key(before), _by_key(now)
    return sorted({key for key in old.keys() | new.keys() if old.get(key) != new.get(key)} - _FREE)


def _by_key(recipe: Section) -> dict[str, Any]:
    content = recipe.model_dump(mode="json")
    sections = {name: values for name, values in content.items() if isinstance(values, dict)}
    keys = {f"{name}.{key}": value for name, values in sections.items() for key, value in values.items()}
    return keys | {name: value for name, value in content.items() if name not in sections and value is not None}
