"""Model folders as they are published: written whole or not at all, and looked over before they leave the house."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from egm.backends.checkpoint import Checkpoint, check_folder
from egm.backends.library_noise import quiet
from egm.errors import ModelError
from egm.progress import progress_task

SAVED_DTYPES = ("bfloat16", "float16", "float32")
MAX_SHARD_SIZE = "5GB"
"""Largest file of weights."""

_PIECES = {
    "config.json": ("config.json",),
    "processor": ("processor_config.json", "preprocessor_config.json"),
    "tokenizer": ("tokenizer.json",),
    "tokenizer's configuration": ("tokenizer_config.json",),
    "chat template": ("chat_template.jinja", "chat_template.json"),
    "generation config": ("generation_config.json",),
    "model card": ("README.md",),
}
_PUBLISHED = (".json", ".jinja", ".txt", ".model", ".md", ".safetensors", ".png", ".yaml")
_INDEX = "model.safetensors.index.json"


def check_dtype(name: str) -> None:
    """Refuse a type that weights are not saved in.

    Raises:
        ModelError: If it is none of `SAVED_DTYPES`.
    """
    if name not in SAVED_DTYPES:
        raise ModelError(f"there is no dtype {name!r} for saved weights: use {', '.join(SAVED_DTYPES)}")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write to, which becomes `out` when all went well, and leaves nothing when not.

    Raises:
        ModelError: If `out` is a file, or a folder that holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{str(out)!r} is there already: give another --out, or delete it")
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_float32(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """Load a model in float32 on the CPU, where sums of weights are made, as the library has it, and its processor."""
    from egm.backends.transformers import TransformersBackend

    backend = TransformersBackend.load(checkpoint, device="cpu", dtype="float32", fast=False)
    return backend.module, backend.processor


def save_model(model: Any, processor: Any, folder: Path, *, dtype: str) -> None:
    """Save all that engines ask for: weights in shards, configurations, tokenizer and chat template.

    `preprocessor_config.json` and `video_preprocessor_config.json` repeat what `processor_config.json` says, for
    engines that read the older names.
    """
    config, tokenizer = model.generation_config, processor.tokenizer
    if config.eos_token_id is None:
        config.eos_token_id = tokenizer.eos_token_id
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    save_weights(model, folder, dtype=dtype)
    config.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    if getattr(processor, "video_processor", None) is not None:
        processor.video_processor.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_weights(model: Any, folder: Path, *, dtype: str, state: Mapping[str, Any] | None = None) -> None:
    """Save weights in shards, and a configuration that tells their type for each part of the model.

    transformers writes the new type at the top only. SGLang reads the language model's, and serves in float16 what
    claims to be float32.

    Args:
        model: A transformers model; its own weights are converted where no others are given.
        folder: Where to.
        dtype: One of `SAVED_DTYPES`.
        state: The weights, where the model holds a share of them only.
    """
    import torch

    kind = getattr(torch, dtype)
    with quiet(), progress_task("saving weights"):
        if state is None:
            model.to(kind).save_pretrained(folder, max_shard_size=MAX_SHARD_SIZE)
        else:
            weights = {name: value.to(kind) for name, value in state.items()}
            model.save_pretrained(folder, state_dict=weights, max_shard_size=MAX_SHARD_SIZE)
    config = model.config
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part.dtype = dtype
    config.save_pretrained(folder)
    usual = (folder / "config.json").stat().st_mode
    for path in folder.glob("*.safetensors"):  # which safetensors makes for its owner alone
        path.chmod(usual)


def publishable(folder: Path) -> list[Path]:
    """List the files of a model folder that may be published.

    Raises:
        ModelError: If a piece is missing, a shard too, or a file does not belong in a published model: weights that are
            not safetensors, code, links, anything of another kind.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no folder {str(folder)!r}: give one that `egm models export` wrote")
    name = str(folder)
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    other = [path.name for path in files if path.is_symlink() or not path.is_file() or path.suffix not in _PUBLISHED]
    if other:
        shown = ", ".join(other[:5]) + (", ..." if len(other) > 5 else "")
        raise ModelError(
            f"{name!r} holds {len(other)} entries that are not published ({shown}): weights must be safetensors, and "
            "only the files of the model belong there; `egm models export` writes such a folder"
        )
    check_folder(folder, name)
    missing = [piece for piece, choices in _PIECES.items() if not any((folder / file).is_file() for file in choices)]
    if missing:
        raise ModelError(f"{name!r} lacks its {', '.join(missing)}: write it with `egm models export`")
    _check_shards(folder, name)
    return files


def _check_shards(folder: Path, name: str) -> None:
    from safetensors import SafetensorError, safe_open

    if (folder / _INDEX).is_file():
        try:
            wanted = sorted(set(json.loads((folder / _INDEX).read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelError(f"{_INDEX} of {name!r} cannot be read: export it again") from None
    else:
        wanted = ["model.safetensors"]
    for file in wanted:
        if Path(str(file)).name != file or not (folder / file).is_file():  # one of the folder itself
            raise ModelError(f"{name!r} lacks {file}: export it again")
        try:
            with safe_open(folder / file, "np"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} of {name!r} is damaged or cut off ({error}): export it again") from None
