"""Known defects of engines, put into a transformers model for as long as it answers, so that they can be recognised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, TypeAlias

Simulation: TypeAlias = Callable[[Any], AbstractContextManager[None]]
"""Takes a model as transformers builds it, and gives it a defect within."""


def simulations_of(module: Any) -> dict[str, Simulation]:
    """Return the defects that a model can be given, by their name in the table of defects.

    Args:
        module: A Qwen3-VL of transformers; of other models none is known.
    """
    inner = getattr(module, "model", None)
    found: dict[str, Simulation] = {}
    if hasattr(inner, "get_rope_index"):
        found |= {"positions": _positions_of_time, "positions_counted": _positions_counted}
    if getattr(getattr(inner, "visual", None), "interpolation_align_corners", None) is True:
        found["align_corners"] = _half_pixel_centres
    return found


@contextmanager
def _half_pixel_centres(module: Any) -> Iterator[None]:
    """Stretch the table of learnt positions from the centres of its cells (align_corners=False)."""
    visual = module.model.visual
    visual.interpolation_align_corners = False
    try:
        yield
    finally:
        visual.interpolation_align_corners = True


def _positions_of_time(module: Any) -> AbstractContextManager[None]:
    """Give height and width the position of time, as a kernel that reads `[3, T]` as `[T]`."""
    return _positions(module, lambda positions: positions[:1].expand(3, -1, -1), counted=False)


def _positions_counted(module: Any) -> AbstractContextManager[None]:
    """Count tokens through, as a model of text alone does."""
    import torch

    def count(positions: Any) -> Any:
        _, batch, length = positions.shape
        return torch.arange(length, device=positions.device).expand(3, batch, length).clone()

    return _positions(module, count, counted=True)


@contextmanager
def _positions(module: Any, change: Callable[[Any], Any], *, counted: bool) -> Iterator[None]:
    inner = module.model
    right = inner.get_rope_index

    def wrong(*args: Any, **kwargs: Any) -> Any:
        positions, deltas = right(*args, **kwargs)
        return change(positions), deltas * 0 if counted else deltas

    inner.get_rope_index = wrong
    try:
        yield
    finally:
        del inner.get_rope_index


NAMES: Final = {"positions_counted": "positions"}
"""Simulations that are another form of a defect, and its name."""
