"""The model that an engine is to serve: found or fetched, in a folder that the engine loads, and how it is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Final

from egm.backends.chat_template import renderer
from egm.backends.checkpoint import EMBEDDED, Checkpoint, check_folder, find_checkpoint
from egm.backends.hub import cached_folder
from egm.codecs.registry import check_family, codec_for, usual_codec
from egm.errors import ModelError
from egm.models import PRESETS
from egm.publish.download import download, hub_name, state
from egm.types import Message

ANSWER_TOKENS: Final = 8192
"""Tokens of answer that a context has room for: what the EGM model cards ask for at most."""
_PHRASE_TOKENS = 512  # a phrase of the longest kind, and the wording around it
_LARGEST_PICTURE = 16_384  # tokens, where no processor says otherwise: Qwen3-VL's limit
_EXPORTED = ("sglang", "vllm")
_EXPORT = "egm-tiny-export"
_loading = Lock()


@dataclass(frozen=True)
class ServedModel:
    """A model on its way to an engine.

    Attributes:
        name: What it was asked for by, in full: "egm-tiny", a folder, or OWNER/NAME.
        folder: What the engine is given.
        model_type: Its architecture; None where that is not known, as the model is not here.
        context: Tokens that the engine's context is to have room for.
        codec: How it is asked and read.
        room: Tokens of answer that the context leaves beside the largest picture and a phrase.
        token_bytes: Bytes that keys and values of a token take in 16 bits; None where the configuration does not tell.
        source: Its folder as it was found; None where it is not here.
        notes: What is to be said of it.
    """

    name: str
    folder: str
    model_type: str | None
    context: int
    codec: str
    room: int = ANSWER_TOKENS
    token_bytes: int | None = None
    source: Path | None = None
    notes: tuple[str, ...] = ()


def serve_model(model: str, engine: str, *, weights: bool = True, stack: ExitStack | None = None) -> ServedModel:
    """Find a model, fetch it if need be, and put it into the form that an engine loads.

    Args:
        model: "egm-tiny", a folder, OWNER/NAME on the Hub, or the NAME of a known checkpoint.
        engine: What is to serve it.
        weights: Whether its folder must hold weights.
        stack: What keeps a temporary folder as long as the engine runs; None only says what would be done, and fetches
            nothing.

    Raises:
        ModelError: If there is no such model, or no codec knows its family.
    """
    if model == EMBEDDED:
        checkpoint, notes = find_checkpoint(EMBEDDED), tuple[str, ...]()
        folder = EMBEDDED if engine == "egm" else str(checkpoint.path)  # by that name, it needs no torch
        if engine in _EXPORTED:
            folder = _EXPORT if stack is None else str(_exported(stack))
            notes = ("egm-tiny is exported to a folder of its own first, with the files that the engine asks for",)
        return _served(checkpoint, EMBEDDED, folder, notes)
    path = Path(model).expanduser()
    if path.is_dir():
        return _served(check_folder(path, model, weights=weights), model, str(path))
    if path.is_file():
        raise ModelError(f"{model!r} is a file: give the folder it is in")
    name = hub_name(model)
    if stack is None and state(name) != "here":
        said = f"{name} is not here, and is fetched first: egm download {name}"
        family = _known_type(name)
        return ServedModel(name, name, family, _context({}, None)[0], usual_codec(family), notes=(said,))
    cached = cached_folder(name) if state(name) == "here" else None
    found = cached or download(name).folder
    return _served(check_folder(found, name), name, str(found))


def _served(checkpoint: Checkpoint, name: str, folder: str, notes: tuple[str, ...] = ()) -> ServedModel:
    check_family(checkpoint.model_type, name)
    render = renderer(checkpoint.path, name)

    def prompt(messages: list[Message]) -> str:
        return render(messages)

    codec = codec_for(checkpoint.model_type, prompt).name
    context, room = _context(checkpoint.config, checkpoint.path)
    return ServedModel(
        name,
        folder,
        checkpoint.model_type,
        context,
        codec,
        room=room,
        token_bytes=_token_bytes(checkpoint.config),
        source=checkpoint.path,
        notes=notes,
    )


def _known_type(name: str) -> str | None:
    """The architecture of a checkpoint that is known by name."""
    family = next((preset.family for preset in PRESETS.values() if name in preset.hub_ids), None)
    return None if family is None else family.replace("-", "_")


def _exported(stack: ExitStack) -> Path:
    from egm.publish.export import export_model

    folder = Path(stack.enter_context(TemporaryDirectory(prefix="egm-serve-")))
    with _loading:  # transformers loads one model at a time
        return export_model(Path(EMBEDDED), folder / _EXPORT)


def _context(config: Mapping[str, Any], folder: Path | None) -> tuple[int, int]:
    """Tokens for the largest picture that the processor makes, a phrase and an answer, as far as the model goes.

    Returns:
        All of them, and those of the answer.
    """
    asked = _picture_tokens(folder) + _PHRASE_TOKENS
    text = config.get("text_config", config)
    most = text.get("max_position_embeddings") if isinstance(text, Mapping) else None
    context = min(asked + ANSWER_TOKENS, most) if isinstance(most, int) and most > 0 else asked + ANSWER_TOKENS
    return context, max(1, context - asked)


def _token_bytes(config: Mapping[str, Any]) -> int | None:
    text = config.get("text_config", config)
    try:
        return 4 * int(text["num_hidden_layers"]) * int(text["num_key_value_heads"]) * int(text["head_dim"])
    except (KeyError, TypeError, ValueError):
        return None


def _picture_tokens(folder: Path | None) -> int:
    settings: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        if folder is not None and (folder / name).is_file():
            found = json.loads((folder / name).read_bytes())
            inner = found.get("image_processor")
            settings |= found | (inner if isinstance(inner, dict) else {})
    try:
        if str(settings.get("image_processor_type")).startswith("GotOcr2"):  # InternVL's: tiles, and the whole as one
            tiles = int(settings.get("max_patches", 12))
            return max(1, int(settings["image_seq_length"]) * (tiles + 1 if tiles > 1 else 1))
        pixels = int(settings["size"]["longest_edge"])  # which Qwen3-VL's processors call the number of pixels
        return max(1, pixels // (int(settings["patch_size"]) * int(settings["merge_size"])) ** 2)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return _LARGEST_PICTURE
