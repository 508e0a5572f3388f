"""Checkpoints of a run: found by their names, sound ones told from damaged ones, old ones pruned.

Damage is looked for in what any launch writes, of one process, of several, sharded by FSDP or by DeepSpeed: whether
every file is there and has its end, and whether weights are the zeros that a power cut leaves. The library would go on
without an optimiser's state, and say nothing.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

STATE = "trainer_state.json"
"""What a checkpoint knows of the run; it is written last, so a checkpoint without it was cut off by a kill."""

_KEPT = 2
_NAME = re.compile(r"checkpoint-(0|[1-9][0-9]*)")
_BLOCKS, _BLOCK = 256, 4096  # how many are looked at, and the bytes of one
_FSDP_FOLDERS = {"pytorch_model_fsdp_0", "optimizer_0"}  # of shards
_FSDP_FILES = {"pytorch_model_fsdp.bin", "optimizer.bin"}  # of full weights
_HEADER_LIMIT = 100_000_000  # safetensors' own


def checkpoints_in(out: Path) -> list[Path]:
    """List the checkpoints of a run from the first to the last, whole or not; copies under other names are no part."""
    found = (out / "checkpoints").glob("checkpoint-*")
    return sorted((path for path in found if _NAME.fullmatch(path.name) and path.is_dir()), key=step_of)


def step_of(folder: Path) -> int:
    """Return the step that a checkpoint's name says."""
    return int(folder.name.rpartition("-")[2])


def is_whole(folder: Path) -> bool:
    """Tell whether a checkpoint was written to its end, whatever became of it since."""
    return _read_json(folder / STATE) is not None


def prune(out: Path) -> None:
    """Take away all checkpoints before the last two that are whole, and nothing that is called otherwise."""
    whole = [folder for folder in checkpoints_in(out) if is_whole(folder)][-_KEPT:]
    for folder in checkpoints_in(out):
        if whole and step_of(folder) < step_of(whole[0]):
            shutil.rmtree(folder, ignore_errors=True)


def advice(folder: Path) -> str:
    """Say what to do about a damaged checkpoint: which sound one is before it."""
    damaged = [folder.name]
    for other in reversed(checkpoints_in(folder.parents[1])):
        if step_of(other) >= step_of(folder):
            continue
        if damage(other) is None:
            return (
                f"move {' and '.join(damaged)} out of {folder.parent}, and --resume goes on from {other.name}, the "
                "sound checkpoint before it"
            )
        damaged.append(other.name)
    return "there is no sound checkpoint before it, so start again with another --out"


def damage(folder: Path) -> str | None:
    """Say what is wrong with a checkpoint, such as `lacks optimizer.pt`; None if it is sound."""
    names = _names(folder)
    if fault := _state_damage(folder):
        return fault
    needed = _random_states(names)
    written = sharded_by(folder)
    if written == "DeepSpeed":
        return _first(folder, needed) or _deepspeed_damage(folder, len(needed))
    if _FSDP_FOLDERS & names:
        processes = len(needed)
        return _first(folder, ["scheduler.pt", *needed]) or next(
            filter(None, (_distributed_damage(folder, name, processes) for name in sorted(_FSDP_FOLDERS))), None
        )
    if written == "FSDP":
        return _first(folder, ["pytorch_model_fsdp.bin", "optimizer.bin", "scheduler.pt", *needed])
    return _weights_damage(folder, names) or _first(folder, ["optimizer.pt", "scheduler.pt", *needed])


def sharded_by(folder: Path) -> str | None:
    """Return what sharded the weights of a checkpoint, "FSDP" or "DeepSpeed"; None where nothing did."""
    names = _names(folder)
    if "latest" in names or any(name.startswith("global_step") for name in names):
        return "DeepSpeed"
    return "FSDP" if (_FSDP_FOLDERS | _FSDP_FILES) & names else None


def processes_of(folder: Path) -> int:
    """Return how many processes wrote a sound checkpoint."""
    return len(_random_states(_names(folder)))


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _state_damage(folder: Path) -> str | None:
    state = _read_json(folder / STATE)
    if state is None:
        return f"has no {STATE} that can be read"
    step, steps, history = (
        state.get(key) if isinstance(state, dict) else None for key in ("global_step", "max_steps", "log_history")
    )
    if type(step) is not int or step != step_of(folder):
        return f"has a {STATE} that is not of step {step_of(folder)}"
    if type(steps) is not int or not isinstance(history, list) or not all(isinstance(line, dict) for line in history):
        return f"has a {STATE} without max_steps or log_history"
    return None


def _weights_damage(folder: Path, names: set[str]) -> str | None:
    index = "model.safetensors.index.json"
    if {"adapter_config.json", "adapter_model.safetensors"} & names:
        return _first(folder, ["adapter_config.json", "adapter_model.safetensors"])
    if index not in names:
        if "model.safetensors" not in names:
            return "lacks model.safetensors or adapter_model.safetensors"
        return _first(folder, ["model.safetensors"])
    content = _read_json(folder / index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        return f"has an {index} that names no files"
    return _first(folder, sorted(set(shards.values())))


def _random_states(names: Iterable[str]) -> list[str]:
    """Name the random states that there should be: one alone, or one a process."""
    found = [name for name in names if re.fullmatch(r"rng_state_(0|[1-9][0-9]{0,6})\.pth", name)]
    if not found:
        return ["rng_state.pth"]
    last = max(int(name[len("rng_state_") : -len(".pth")]) for name in found)
    return [f"rng_state_{number}.pth" for number in range(max(last + 1, 2))]  # a process alone writes no number


def _deepspeed_damage(folder: Path, processes: int) -> str | None:
    try:
        named = (folder / "latest").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return "lacks latest"
    shards = folder / Path(named).name
    for end in ("model_states.pt", "optim_states.pt"):
        files = sorted(path.name for path in shards.glob(f"*{end}"))
        if not files:
            return f"lacks {shards.name}/*{end}"
        ranks = sorted(int(found[1]) for name in files if (found := re.search(r"zero_pp_rank_([0-9]{1,7})_", name)))
        if ranks and ranks != list(range(processes)):
            return f"lacks one of {shards.name}/zero_pp_rank_*{end}"
        if fault := _first(shards, files):
            return fault
    return None


def _distributed_damage(folder: Path, name: str, processes: int) -> str | None:
    """Look through a folder that torch.distributed.checkpoint wrote: a file a process, and what they hold."""
    for file in (".metadata", *(f"__{rank}_0.distcp" for rank in range(processes))):
        path = folder / name / file
        if not path.is_file():
            return f"lacks {name}/{file}"
        if not path.stat().st_size:
            return f"has an empty {name}/{file}"
    return None


def _first(folder: Path, names: Iterable[str]) -> str | None:
    """Say which is the first of these files that is missing or has lost its end."""
    for name in names:
        path = folder / name
        if not path.is_file():
            return f"lacks {name}"
        if not _has_its_end(path):
            return f"has a {name} that is cut off or damaged"
    return None


def _has_its_end(path: Path) -> bool:
    try:
        if path.suffix == ".safetensors":
            return _is_whole_safetensors(path)
        if path.suffix == ".json":
            return isinstance(_read_json(path), dict)
        with zipfile.ZipFile(path) as archive:  # as torch saves; the directory is at its end
            return bool(archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, RecursionError):
        return False


def _is_whole_safetensors(path: Path) -> bool:
    """Hold a file's length against what its header says; whole files of weights are too large to be read for this."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _HEADER_LIMIT:
            return False
        header = json.loads(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return bool(ends) and path.stat().st_size == 8 + length + max(ends) and _is_written(path, 8 + length, max(ends))


def _is_written(path: Path, start: int, size: int) -> bool:
    """Look at blocks of the second half of some weights: what never reached the disk is zeros up to the end.

    One block of zeros may be a tensor that holds nothing else; half of a model is none.
    """
    first, last = start + size // 2, start + max(size - _BLOCK, size // 2)
    with path.open("rb") as file:
        for number in range(_BLOCKS):
            file.seek(first + (last - first) * number // (_BLOCKS - 1))
            if any(file.read(_BLOCK)):
                return True
    return False


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
