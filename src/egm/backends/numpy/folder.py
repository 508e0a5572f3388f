"""What a model folder holds, without torch: weights, the processor's settings, the chat template, M-RoPE positions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from egm.backends.numpy.qwen3_vl import Floats, Grid
from egm.errors import ModelError, RequestError


def read_safetensors(folder: Path) -> dict[str, Floats]:
    """Read every tensor of a folder's safetensors files as float32; bfloat16, which NumPy lacks, is widened.

    Raises:
        ModelError: If a tensor is of another type.
    """
    from safetensors import deserialize

    weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, entry in deserialize(file.read_bytes()):  # type: ignore[no-untyped-call]
            raw = entry["data"]
            if entry["dtype"] == "BF16":
                values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
            elif entry["dtype"] in ("F32", "F16"):
                values = np.frombuffer(raw, np.float32 if entry["dtype"] == "F32" else np.float16).astype(np.float32)
            else:
                raise ModelError(f"{file.name} holds {name} as {entry['dtype']}: save it as F32, BF16 or F16")
            weights[name] = values.reshape(entry["shape"])
    return weights


def image_positions(length: int, at: int, grid: Grid) -> Any:
    """M-RoPE positions, shape (3, length): text counts on, an image spans a plane that begins where it stands."""
    rows, columns = grid[0] // 2, grid[1] // 2
    positions = np.empty((3, length), dtype=np.int64)
    positions[:, :at] = np.arange(at)
    end = at + rows * columns
    positions[0, at:end] = at
    positions[1, at:end] = at + np.repeat(np.arange(rows), columns)
    positions[2, at:end] = at + np.tile(np.arange(columns), rows)
    positions[:, end:] = at + max(rows, columns) + np.arange(length - end)
    return positions


def image_settings(folder: Path) -> dict[str, Any]:
    """Read how pictures are resized and cut up."""
    file = folder / "processor_config.json"
    if file.is_file():
        return dict(json.loads(file.read_bytes())["image_processor"])
    return dict(json.loads((folder / "preprocessor_config.json").read_bytes()))


def compile_template(source: str) -> Any:
    """Compile a chat template in a sandbox."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise RequestError(f"the chat template refuses: {message}")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    return environment.from_string(source)
