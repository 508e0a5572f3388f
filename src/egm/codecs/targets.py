"""Writing training targets: coordinates on a model's scale, and the text around them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from egm.codecs.parsing.reading import Scale, split_reasoning
from egm.codecs.prompts import neutralise

if TYPE_CHECKING:
    from egm.boxes import Box

JSON_TAIL_STOPS: Final = ('"label"',)
"""What stands right behind the box of the Qwen-VL family. Never a code fence: that opens the answer too."""

THINK_CLOSED: Final = "</think>\n\n"
"""What ends the reasoning, and by itself leaves it out, where the chat template has opened it."""

THINK_OPENING: Final = "<think>\n"
"""How reasoning begins, where the chat template has not begun it."""


def whole_numbers(box: Box, size: tuple[int, int], scale: Scale) -> tuple[float, float, float, float]:
    """Round a box to the units of a model's scale, half up, no side shorter than one unit.

    Args:
        box: In pixels.
        size: Width and height of the image in pixels.
        scale: What its numbers mean.

    Returns:
        `x1, y1, x2, y2`, whatever order the family writes: integers, or floats where it writes decimals.
    """
    parts = 10**scale.digits
    span = (scale.span[0] * parts, scale.span[1] * parts)
    half = 0.0 if scale.middle else 0.5
    x1, y1, x2, y2 = (
        math.floor(value * units / side + half) for value, units, side in zip(box, span * 2, size * 2, strict=True)
    )
    if scale.bins:
        span = (span[0] - 1, span[1] - 1)
        x1, y1, x2, y2 = min(x1, span[0]), min(y1, span[1]), min(x2, span[0]), min(y2, span[1])
    x1, x2 = _at_least_one_unit(x1, x2, span[0])
    y1, y2 = _at_least_one_unit(y1, y2, span[1])
    return (x1 / parts, y1 / parts, x2 / parts, y2 / parts) if parts > 1 else (x1, y1, x2, y2)


def with_reasoning(answer: str, rationale: str | None, *, thinking_prefilled: bool) -> str:
    """Put the rationale before an answer.

    Without one, a prefilled `<think>` is closed at once, and nothing is opened otherwise.
    """
    thought = neutralise(rationale or "").strip()
    if not thought:
        return f"{THINK_CLOSED}{answer}" if thinking_prefilled else answer
    return f"{'' if thinking_prefilled else THINK_OPENING}{thought}\n{THINK_CLOSED}{answer}"


def close_reasoning(text: str, opening: str, *, thinking_prefilled: bool) -> str:
    """Write the assistant prefill that closes the reasoning which a text leaves open, and begins the answer.

    Returns:
        The end of the reasoning and `opening`; nothing if no reasoning is open.
    """
    if split_reasoning(text, thinking_prefilled=thinking_prefilled)[1] is not None:
        return ""
    return f"{'' if text.endswith(chr(10)) else chr(10)}{THINK_CLOSED}{opening}"


def _at_least_one_unit(low: int, high: int, span: int) -> tuple[int, int]:
    """Lengthen a side that rounded to nothing: to the right or down, but at the frame's own edge inwards."""
    if low != high:
        return low, high
    # Only at the edge itself: beyond it the box is amodal, and leaves the frame whichever way it grows.
    return (low - 1, high) if high == span else (low, high + 1)
