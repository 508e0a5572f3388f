"""What a checkpoint says of its own size, held against the weights that it brings, before anything is built from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from egm.errors import ModelError
from egm.images import MAX_PIXELS

INDEX: Final = "model.safetensors.index.json"
"""Name of the file that says which of several files holds which weights."""

_MOST_LAYERS: Final = 1000
_LARGEST: Final = 10**12
_MOST_TILES: Final = 256
_LAYERS: Final = ("num_hidden_layers", "depth", "num_layers", "n_layer")
_POSITIVE: Final = frozenset(
    (
        *(
            "hidden_size",
            "intermediate_size",
            "moe_intermediate_size",
            "vocab_size",
            "num_attention_heads",
            "num_heads",
        ),
        *(
            "num_key_value_heads",
            "head_dim",
            "patch_size",
            "image_size",
            "merge_size",
            "spatial_merge_size",
            "temporal_patch_size",
        ),
    )
)
"""What is divided by, or is a side of a matrix."""
_MATRICES: Final = (
    ("hidden_size",),
    ("hidden_size", "vocab_size"),
    ("hidden_size", "num_position_embeddings"),
    ("hidden_size", "out_hidden_size"),
    ("hidden_size", "patch_size", "patch_size"),
    ("layers", "hidden_size", "intermediate_size"),
    ("layers", "hidden_size", "num_attention_heads", "head_dim"),
    ("layers", "hidden_size", "moe_intermediate_size", "num_experts"),
)
"""Sides of matrices that a model has, if its configuration has their names."""


def check_sizes(config: Mapping[str, Any], folder: Path, name: str) -> None:
    """Refuse a configuration of a model that the weights in its folder cannot be those of.

    Each weight takes half a byte at least, so a matrix with more of them than twice the bytes is not in the files. To
    build it all the same could take hours, and all memory there is.

    Raises:
        ModelError: If a number is no size, there are more than 1,000 layers, or a matrix is too large.
    """
    most = 2 * sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    for section in (config, *_sections(config)):
        for key, value in section.items():
            _check_number(key, value, f"config.json of {name!r}")
        layers = next((section[key] for key in _LAYERS if isinstance(section.get(key), int)), 1)
        if layers > _MOST_LAYERS:
            raise ModelError(f"config.json of {name!r} says {layers:,} layers: no model has so many")
        sizes = {**section, "layers": max(1, layers)}
        for sides in _MATRICES:
            numbers = [sizes.get(side) for side in sides]
            if all(isinstance(number, int) for number in numbers) and math.prod(numbers) > most:  # type: ignore[arg-type]
                said = ", ".join(f"{side} {sizes[side]:,}" for side in dict.fromkeys(sides))
                raise ModelError(
                    f"config.json of {name!r} says {said}, which its weights of {most // 2:,} bytes cannot be: they "
                    "are cut off, or of another model, so copy all its files"
                )


def check_processor(config: Mapping[str, Any], file: str, name: str) -> None:
    """Refuse an image processor that would divide by nothing, or make pictures larger or of more tiles than any is.

    Raises:
        ModelError: If so.
    """
    for section in (config, *_sections(config)):
        for key, value in section.items():
            _check_number(key, value, f"{file} of {name!r}")
            if key in ("shortest_edge", "min_pixels") and isinstance(value, int | float) and value > MAX_PIXELS:
                raise ModelError(f"{file} of {name!r} enlarges every picture to {value:,} pixels ({key}): mend it")
            if key in ("min_patches", "max_patches") and isinstance(value, int) and value > _MOST_TILES:
                raise ModelError(f"{file} of {name!r} cuts pictures into {value:,} tiles ({key}): mend it")


def check_index(index: Mapping[str, Any], folder: Path, name: str) -> None:
    """Refuse an index that names anything but weights files of the folder itself.

    Raises:
        ModelError: If it is none, leads out of the folder, or a file is missing.
    """
    files = index.get("weight_map")
    if not isinstance(files, Mapping) or not all(isinstance(file, str) for file in files.values()):
        raise ModelError(f"{INDEX} of {name!r} has no weight_map: copy or download it again")
    for file in sorted(set(files.values())):
        if Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            raise ModelError(f"{INDEX} of {name!r} names {file[:80]!r}, which is no weights file of its folder")
        if not (folder / file).is_file():
            raise ModelError(f"{name!r} lacks {file[:80]}, which {INDEX} names: copy or download it again")


def _sections(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The objects within a configuration, one and two levels deep."""
    for value in config.values():
        if isinstance(value, Mapping):
            yield value
            yield from (inner for inner in value.values() if isinstance(inner, Mapping))


def _check_number(key: str, value: object, where: str) -> None:
    for number in value if isinstance(value, list) else [value]:  # such as a height and a width
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if not abs(number) < _LARGEST or (key in _POSITIVE and number <= 0):
            shown = f"{number:,}" if abs(number) < _LARGEST else "a number beyond all use"
            raise ModelError(f"{where} says {key[:60]} {shown}, which is no size: copy or download it again")
