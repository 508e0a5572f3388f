"""The trained model that comes with the package."""

from __future__ import annotations

from pathlib import Path

from egm.errors import ModelError


def embedded_path() -> Path:
    """Return the folder of `egm-tiny`, a trained tiny-s model that `from_pretrained` loads.

    Raises:
        ModelError: If the weights are not in this installation.
    """
    folder = Path(__file__).with_name("weights")
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise ModelError(f"no trained weights in {folder}: install a release of egm, or name a model folder or hub id")
    return folder
