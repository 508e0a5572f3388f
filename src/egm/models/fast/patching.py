"""Monkey patches on one instance, so that the library's classes and other models stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

_KEPT = "_egm_stock"


def patch(module: Any, name: str, function: Callable[..., Any]) -> None:
    """Replace a method of one instance, unless it is replaced already.

    The replacement is a bound method, so that a deep copy of the module runs on its own weights.

    Args:
        module: The instance.
        name: The method's name.
        function: What takes its place; its first argument is the instance.
    """
    kept: dict[str, Any] = module.__dict__.setdefault(_KEPT, {})
    if name not in kept:
        kept[name] = module.__dict__.get(name)
        setattr(module, name, MethodType(function, module))


def stock(module: Any, name: str) -> Any:
    """Return the bound method that `patch` replaced."""
    previous = module.__dict__[_KEPT][name]
    return previous if previous is not None else MethodType(getattr(type(module), name), module)


def is_patched(module: Any) -> bool:
    """Tell whether a method of this instance is replaced."""
    return _KEPT in module.__dict__


def restore(module: Any) -> None:
    """Put back whatever `patch` replaced on this instance."""
    for name, previous in module.__dict__.pop(_KEPT, {}).items():
        if previous is None:
            delattr(module, name)
        else:
            setattr(module, name, previous)
