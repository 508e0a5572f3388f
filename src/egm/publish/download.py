"""Checkpoints from the Hugging Face Hub: fetched in full, looked through, and told what of them is here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from egm.backends.checkpoint import EMBEDDED, check_folder
from egm.backends.hub import HUB_NAME, SMALL_FILES, WEIGHTS, cached_folder, fetch
from egm.errors import ModelError, closest
from egm.models import PRESETS

State = Literal["here", "partly", "not here"]


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A checkpoint that was fetched and looked through.

    Attributes:
        name: OWNER/NAME.
        folder: Where it lies.
        model_type: Its architecture.
        files: How many files it has.
        size: Bytes of them all.
    """

    name: str
    folder: Path
    model_type: str
    files: int
    size: int


def known_models() -> list[str]:
    """Names on the Hub of the checkpoints that are known here, small to large."""
    return [hub_id for preset in PRESETS.values() for hub_id in preset.hub_ids]


def hub_name(model: str) -> str:
    """Return OWNER/NAME of a model that is called so, or by NAME alone in any case.

    Raises:
        ModelError: If the name is none of the Hub's form, and not that of a known checkpoint.

    Example:
        >>> hub_name("egm-8b")
        'nvidia/EGM-8B'
    """
    short = {name.partition("/")[2].lower(): name for name in known_models()}
    if found := short.get(model.lower()):
        return found
    if HUB_NAME.fullmatch(model):
        return model
    if model == EMBEDDED:
        raise ModelError("egm-tiny comes with the package: there is nothing to fetch")
    meant = closest(model.lower(), short)
    hint = f"did you mean {short[meant]!r}? " if meant else ""
    raise ModelError(f"there is no model {model[:200]!r}: {hint}give OWNER/NAME, or one that `egm models` lists")


def download(model: str, *, to: Path | None = None) -> Downloaded:
    """Fetch a checkpoint from the Hub and look it through; what is here already is not fetched again.

    Its small files come first, so that a model which could not be used is refused before gigabytes are fetched. Weights
    are safetensors, and code is left where it is.

    Args:
        model: A name that `hub_name` knows.
        to: Folder to put it into; None takes the Hub's cache, where transformers, vLLM and SGLang look too.

    Raises:
        ModelError: If there is no such model, the Hub cannot be reached or refuses, or what came is not whole.
    """
    name = hub_name(model)
    if to is not None and to.exists() and not to.is_dir():
        raise ModelError(f"{str(to)!r} is a file: name a folder with --to")
    check_folder(fetch(name, SMALL_FILES, to=to), name, weights=False)
    folder = fetch(name, (*SMALL_FILES, WEIGHTS), to=to)
    checkpoint = check_folder(folder, name)
    _check_weights(folder, name)
    sizes = [path.stat().st_size for path in _files(folder)]
    return Downloaded(name, folder, checkpoint.model_type, len(sizes), sum(sizes))


def state(model: str) -> State:
    """Say whether a checkpoint lies in the Hub's cache, without asking the Hub.

    Args:
        model: OWNER/NAME.

    Returns:
        "partly" for one that broke off, or was fetched without its weights.
    """
    folder = cached_folder(model)
    if folder is None:
        return "not here"
    try:
        check_folder(folder, model)
    except ModelError:
        return "partly"
    return "here"


def _check_weights(folder: Path, name: str) -> None:
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob(WEIGHTS)):
        try:
            with safe_open(path, "np"):
                pass
        except (SafetensorError, OSError):
            raise ModelError(
                f"{path.name} of {name!r} came damaged or cut off: delete {str(path)!r} and fetch it again"
            ) from None


def _files(folder: Path) -> Iterator[Path]:
    for pattern in (*SMALL_FILES, WEIGHTS):
        yield from folder.glob(pattern)
