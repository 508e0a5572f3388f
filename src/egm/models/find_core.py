"""The core of a Qwen-VL model: the module that holds its vision tower (`visual`) and its `language_model`.

Around it stand the head, and whatever a model is wrapped in: PEFT, a data-parallel shell, another model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def cores_of(model: Any) -> list[Any]:
    """Return every core inside a model, the model itself included."""
    return list(_cores(model))


def core_of(model: Any) -> Any:
    """Return the first core inside a model; None if it is of another kind."""
    return next(_cores(model), None)


def _cores(model: Any) -> Iterator[Any]:
    return (module for module in model.modules() if hasattr(module, "visual") and hasattr(module, "language_model"))
