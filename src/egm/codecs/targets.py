"""Writing training targets: coordinates on a model's scale, and the text around them."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final

from egm.codecs.parsing.reading import split_reasoning
from egm.codecs.prompts import neutralise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egm.boxes import Box

JSON_OPENING: Final = '```json\n[\n\t{"bbox_2d": ['
"""How the Qwen-VL family's answer begins, up to the first coordinate."""
JSON_TAIL_STOPS: Final = ('"label"',)
"""What stands right behind its box. Never a code fence: that opens the answer too."""

THINK_OPENING: Final = "<think>\n"
"""How reasoning begins, where the chat template has not begun it."""


def whole_numbers(box: Box, size: tuple[int, int], span: tuple[int, int]) -> tuple[int, int, int, int]:
    """Round a box to whole numbers on a model's scale, half up, no side shorter than one unit.

    Args:
        box: In pixels.
        size: Width and height of the image in pixels.
        span: The numbers at the right and the bottom edge of the image.
    """
    x1, y1, x2, y2 = (
        math.floor(value * units / side + 0.5) for value, units, side in zip(box, span * 2, size * 2, strict=True)
    )
    x1, x2 = _at_least_one_unit(x1, x2, span[0])
    y1, y2 = _at_least_one_unit(y1, y2, span[1])
    return x1, y1, x2, y2


def json_answer(phrase: str, numbers: tuple[int, int, int, int]) -> str:
    """Write the fenced JSON of the Qwen-VL family; the label is escaped, so that any phrase gives valid JSON."""
    label = json.dumps(neutralise(phrase).strip(), ensure_ascii=False)
    return f'{JSON_OPENING}{str(list(numbers))[1:]}, "label": {label}}}\n]\n```'


def json_answers(phrase: str, boxes: Sequence[tuple[int, int, int, int]]) -> str:
    """Write the same of any number of boxes: an object each, or an empty list."""
    if not boxes:
        return "```json\n[]\n```"
    label = json.dumps(neutralise(phrase).strip(), ensure_ascii=False)
    lines = ",\n".join(f'\t{{"bbox_2d": {list(numbers)}, "label": {label}}}' for numbers in boxes)
    return f"```json\n[\n{lines}\n]\n```"


def with_reasoning(answer: str, rationale: str | None, *, thinking_prefilled: bool) -> str:
    """Put the rationale before an answer.

    Without one, a prefilled `<think>` is closed at once, and nothing is opened otherwise.
    """
    thought = neutralise(rationale or "").strip()
    if not thought:
        return f"</think>\n\n{answer}" if thinking_prefilled else answer
    return f"{'' if thinking_prefilled else THINK_OPENING}{thought}\n</think>\n\n{answer}"


def close_reasoning(text: str, opening: str, *, thinking_prefilled: bool) -> str:
    """Write the assistant prefill that closes the reasoning which a text leaves open, and begins the answer.

    Returns:
        The end of the reasoning and `opening`; nothing if no reasoning is open.
    """
    if split_reasoning(text, thinking_prefilled=thinking_prefilled)[1] is not None:
        return ""
    return f"{'' if text.endswith(chr(10)) else chr(10)}</think>\n\n{opening}"


def _at_least_one_unit(low: int, high: int, span: int) -> tuple[int, int]:
    """Lengthen a side that rounded to nothing: to the right or down, but at the frame's own edge inwards."""
    if low != high:
        return low, high
    # Only at the edge itself: beyond it the box is amodal, and leaves the frame whichever way it grows.
    return (low - 1, high) if high == span else (low, high + 1)
