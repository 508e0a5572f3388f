"""Finding a model: the embedded one, a folder, or a name on the Hugging Face Hub; and refusing what cannot be loaded.

Everything that can be refused from the files' names and their JSON is refused here, before torch is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from egm.backends.checkpoint_bounds import INDEX, check_index, check_processor, check_sizes
from egm.backends.hub import HUB_NAME, SMALL_FILES, WEIGHTS, fetch
from egm.errors import ModelError
from egm.extras import CHECKPOINTS, need
from egm.models import PRESETS

EMBEDDED: Final = "egm-tiny"
"""Name of the model that comes with the package."""
EMBEDDED_MAX_NEW_TOKENS: Final = 640
"""Its limit where none is given: its answers about SynthRef take 91 to 590 tokens, others would never end."""

_MAX_JSON = 64 * 2**20  # bytes; the index of a model of hundreds of billions takes some ten million
_CONFIGURATION = (
    *("config.json", "generation_config.json", "*processor_config.json", "tokenizer*.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.*", "merges.txt", "*.model", "chat_template*.json", "*.jinja", "*/*.jinja"),
)
"""What beside the weights decides how a model is asked, sees, and is read."""
_EDGE = 1 << 16  # bytes at each end of a weights file that tell it from another of its size
_PIECE = 4096  # bytes of a tensor that are read at each of three places
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_CHOICES = f"give {EMBEDDED!r}, a folder with config.json and *.safetensors, or a hub name such as 'nvidia/EGM-8B'"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder that may be loaded.

    Attributes:
        name: What the user called it.
        path: The folder.
        config: Its `config.json`.
    """

    name: str
    path: Path
    config: Mapping[str, Any]

    @property
    def model_type(self) -> str:
        """The architecture, such as "qwen3_vl"."""
        return str(self.config.get("model_type"))


def find_checkpoint(name: str | os.PathLike[str]) -> Checkpoint:
    """Find a model and check its folder.

    Args:
        name: "egm-tiny", a folder, or a hub name, which is downloaded or taken from the cache.

    Raises:
        ModelError: If there is no such model, it cannot be fetched, its folder lacks a configuration or safetensors
            weights, or it needs Python code of its own.
        MissingExtraError: If it would have to be fetched, and nothing here could run it.
    """
    text = os.fspath(name)
    if text == EMBEDDED:
        from egm.models import embedded_path

        return check_folder(embedded_path(), text)
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            return check_folder(path, text)
        if path.exists():
            raise ModelError(f"{text!r} is a file: give the folder it is in")
    except OSError as error:  # a name too long, a folder that may not be entered
        raise ModelError(f"cannot open {text[:200]!r}: {error.strerror}: {_CHOICES}") from error
    except ValueError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{text[:200]!r} is no model: {_CHOICES}") from error
    if HUB_NAME.fullmatch(text):
        need(f"running {text} in this process", *CHECKPOINTS)  # before gigabytes are fetched in vain
        check_folder(fetch(text, SMALL_FILES), text, weights=False)
        return check_folder(fetch(text, (*SMALL_FILES, WEIGHTS)), text)
    if (size := PRESETS.get(text)) is not None:
        instead = f"give {size.hub_ids[-1]!r}" if size.hub_ids else "train one with egm sft (model.from_scratch: true)"
        raise ModelError(f"{text!r} is a size, not a model: {instead}")
    raise ModelError(f"there is no model {text[:200]!r}: {_CHOICES}")


def check_folder(path: Path, name: str, *, weights: bool = True) -> Checkpoint:
    """Check a model folder from its file names and its JSON.

    Args:
        path: The folder.
        name: What to call it in messages.
        weights: Whether to ask for weights too.

    Raises:
        ModelError: See `find_checkpoint`.
    """
    if not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file():
            raise ModelError(f"{name!r} is an adapter without its model: merge them and save the whole model")
        raise ModelError(f"{name!r} holds no config.json: {_CHOICES}")
    config = _read_json(path / "config.json", name)
    if not isinstance(config.get("model_type"), str):
        raise ModelError(f"config.json of {name!r} names no model_type: give a folder that transformers saved")
    for file in ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        if not (path / file).is_file():
            continue
        content = _read_json(path / file, name)
        if "processor" in file:
            check_processor(content, file, name)
        if "auto_map" in content:
            raise ModelError(
                f"{name!r} needs Python code of its own (auto_map in {file}), and EGM runs no code from checkpoints: "
                "give a version that transformers loads by itself"
            )
    if weights and not any(path.glob(WEIGHTS)):
        if any(file.suffix in _PICKLES for file in path.iterdir()):
            raise ModelError(
                f"{name!r} holds only pickled weights, which can run code when loaded: save it as safetensors, "
                "such as by model.save_pretrained"
            )
        raise ModelError(f"{name!r} holds no weights (*.safetensors): copy them beside its config.json")
    if weights:
        check_sizes(config, path, name)
        if (path / INDEX).is_file():
            check_index(_read_json(path / INDEX, name), path, name)
    return Checkpoint(name, path, config)


def _read_json(file: Path, name: str) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MAX_JSON:
            raise ModelError(f"{file.name} of {name!r} is over {_MAX_JSON // 2**20} MB: copy or download it again")
        value = json.loads(file.read_bytes())
    except ModelError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file.name} of {name!r} cannot be read as JSON: copy or download it again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{file.name} of {name!r} is not a JSON object: copy or download it again")
    return value


def weights_digest(folder: Path) -> str:
    """Tell weights from others under the same name, without reading gigabytes.

    Returns:
        16 hexadecimal digits, of the sizes and ends of the folder's safetensors files.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob(WEIGHTS)):
        with path.open("rb") as file:
            digest.update(f"{path.name} {path.stat().st_size}\n".encode() + file.read(_EDGE))
            file.seek(max(0, path.stat().st_size - _EDGE))
            digest.update(file.read())
    return digest.hexdigest()[:16]


def tensors_digest(folder: Path) -> str:
    """Tell trained weights from others of the same architecture, whatever files they lie in, without reading gigabytes.

    A training may leave most tensors as they were, so that of each a part is read.

    Returns:
        16 hexadecimal digits, of each tensor's name, type, shape and three pieces of its numbers.

    Raises:
        ModelError: If a file of weights cannot be read.
    """
    tensors: list[tuple[str, bytes]] = []
    for path in sorted(folder.glob(WEIGHTS)):
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                if size > path.stat().st_size:
                    raise ValueError
                header = json.loads(file.read(size))
                for name, facts in header.items():
                    if name != "__metadata__":
                        begin, end = facts["data_offsets"]
                        parts = [f"{name} {facts['dtype']} {facts['shape']}\n".encode()]
                        for place in (begin, (begin + end - _PIECE) // 2, end - _PIECE):
                            file.seek(8 + size + max(begin, place))
                            parts.append(file.read(min(_PIECE, end - begin)))
                        tensors.append((name, b"".join(parts)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ModelError(
                f"{path.name} of {str(folder)!r} is damaged or cut off: copy or download it again"
            ) from None
    digest = hashlib.sha256()
    for _, part in sorted(tensors):
        digest.update(part)
    return digest.hexdigest()[:16]


def configuration_digest(folder: Path) -> str:
    """Tell the processor, tokenizer, chat template and configuration of a model from others beside the same weights.

    Returns:
        16 hexadecimal digits, of the names and contents of those files.
    """
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _CONFIGURATION for path in folder.glob(pattern) if path.is_file()}):
        content = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                content.update(piece)
        digest.update(f"{path.relative_to(folder).as_posix()} {content.hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
