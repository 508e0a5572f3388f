"""Optional packages: which extra of `egm-grounding` installs each, and the one line that names it where it is missing.

What needs one says so before it begins (`need`). `explained` stands where nobody asked beforehand.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from egm.errors import MissingExtraError

EXTRAS: Final = {
    "matplotlib": "report",
    "pyarrow": "data",
    "torch": "torch",
    "torchvision": "torch",
    "transformers": "torch",
    "accelerate": "torch",
    "triton": "torch",
    "datasets": "train",
    "datasketch": "rationales",
    "supervision": "supervision",
    "fiftyone": "fiftyone",
    "mcp": "mcp",
    "peft": "train",
    "trl": "train",
    "fastapi": "serve",
    "uvicorn": "serve",
    "gradio": "web",
}
"""The extra that installs each optional package; `train` does what `torch` and `data` do, `web` what `serve` does."""
CHECKPOINTS: Final = ("torch", "torchvision", "transformers", "accelerate")
"""What running any checkpoint in this process takes."""
TRAINING_PACKAGES: Final = (*CHECKPOINTS, "datasets", "peft", "trl")
"""What training takes."""


def need(what: str, *packages: str) -> None:
    """Make sure that optional packages can be imported, without importing them.

    Args:
        what: What needs them, as the subject of the message, such as "egm sft".
        packages: Names of their modules.

    Raises:
        MissingExtraError: If one is not installed.
    """
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        raise MissingExtraError(_line(what, missing))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Say in the same line that an import within failed for want of an optional package.

    Raises:
        MissingExtraError: In place of the ModuleNotFoundError; that of any other package is left as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS or importlib.util.find_spec(package) is not None:
            raise
        raise MissingExtraError(_line(what, [package])) from error


def _line(what: str, missing: Sequence[str]) -> str:
    extras = {EXTRAS[package] for package in missing}
    extras -= {"torch", "data"} if "train" in extras else set()
    extras -= {"serve"} if "web" in extras else set()
    listed = missing[0] if len(missing) == 1 else f"{', '.join(missing[:-1])} and {missing[-1]}"
    verb = "is" if len(missing) == 1 else "are"
    named = ",".join(sorted(extras))
    how = f'uv pip install ".[{named}]" in a clone, else pip install "egm-grounding[{named}]"'
    return f"{what} needs {listed}, which {verb} not installed: {how}"
