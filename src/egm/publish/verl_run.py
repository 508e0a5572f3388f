"""Checkpoints as verl lays them: found in a run of `egm verl`, in verl's own folder, or inside one of them.

```
checkpoints/latest_checkpointed_iteration.txt
checkpoints/global_step_20/actor/model_world_size_1_rank_0.pt     shards, for going on
checkpoints/global_step_20/actor/huggingface/                     the model, for everything else
```
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from egm.errors import ModelError

LATEST: Final = "latest_checkpointed_iteration.txt"
_STEP = re.compile(r"global_step_(\d+)")
_SHARD = re.compile(r"model_world_size_(\d+)_rank_\d+\.pt")


def last_global_step(run: Path) -> int | None:
    """Return the step of the last whole checkpoint of a run, which verl counts in rollouts; None if there is none."""
    home = _home(run)
    if home is None:
        return None
    try:
        step = int((home / LATEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return step if (home / f"global_step_{step}" / "actor").is_dir() else None


def find_exported(source: Path) -> Path | None:
    """Find the model of verl's last checkpoint.

    Args:
        source: A run of `egm verl`, verl's folder of checkpoints, one checkpoint (`global_step_N`) or its `actor`.

    Returns:
        The folder with its configuration and safetensors weights; None if `source` is nothing of verl's.

    Raises:
        ModelError: If it is verl's, and holds no whole checkpoint, or no model but shards.
    """
    actor = _actor(source)
    if actor is None:
        return None
    model = actor / "huggingface"
    if any(model.glob("*.safetensors")):
        return model
    if world_size(actor) is None:
        raise ModelError(f"{str(actor)!r} holds no model: its saving was cut off; give an earlier global_step_N")
    raise ModelError(
        f"{str(actor)!r} holds the model in pickled shards alone, which are not loaded: merge them first with "
        f"python -m verl.model_merger merge --backend fsdp --local_dir {actor} --target_dir OUT"
    )


def world_size(actor: Path) -> int | None:
    """Return how many GPUs wrote a checkpoint; None if it holds no shards."""
    found = (_SHARD.fullmatch(path.name) for path in actor.glob("model_world_size_*"))
    return next((int(match[1]) for match in found if match), None)


def _home(source: Path) -> Path | None:
    return next((folder for folder in (source / "checkpoints", source) if (folder / LATEST).is_file()), None)


def _actor(source: Path) -> Path | None:
    if _STEP.fullmatch(source.name) and (source / "actor").is_dir():
        return source / "actor"
    if source.name == "actor" and _STEP.fullmatch(source.resolve().parent.name):
        return source
    home = _home(source)
    if home is None:
        return None
    step = last_global_step(source)
    if step is None:
        raise ModelError(f"{str(home)!r} holds no whole checkpoint of verl's: give a global_step_N that is there")
    return home / f"global_step_{step}" / "actor"
