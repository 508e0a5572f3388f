"""Writing training targets: coordinates on a model's scale, and the text around them."""

from __future__ import annotations

import json
from typing import Final

from egm.codecs.parsing.reading import split_reasoning
from egm.codecs.prompts import neutralise

JSON_OPENING: Final = '```json\n[\n\t{"bbox_2d": ['
"""How the Qwen-VL family's answer begins, up to the first coordinate."""


def widen(box: tuple[int, int, int, int], span: tuple[int, int]) -> tuple[int, int, int, int]:
    """Give a side that rounded to nothing the width of one unit, inside the span where it can be."""
    x1, y1, x2, y2 = box
    x1, x2 = _apart(x1, x2, span[0])
    y1, y2 = _apart(y1, y2, span[1])
    return x1, y1, x2, y2


def json_answer(phrase: str, numbers: tuple[int, int, int, int]) -> str:
    """Write the fenced JSON of the Qwen-VL family; the label is escaped, so that any phrase gives valid JSON."""
    label = json.dumps(neutralise(phrase).strip(), ensure_ascii=False)
    return f'{JSON_OPENING}{str(list(numbers))[1:]}, "label": {label}}}\n]\n```'


def with_reasoning(answer: str, rationale: str | None, *, thinking_prefilled: bool) -> str:
    """Put the rationale before an answer.

    Without one, a prefilled `<think>` is closed at once, and nothing is opened otherwise.
    """
    thought = neutralise(rationale or "").strip()
    if not thought:
        return f"</think>\n\n{answer}" if thinking_prefilled else answer
    return f"{'' if thinking_prefilled else '<think>' + chr(10)}{thought}\n</think>\n\n{answer}"


def close_reasoning(text: str, opening: str, *, thinking_prefilled: bool) -> str:
    """Write what closes the reasoning that a text leaves open, and how the answer begins; nothing if none is open."""
    if split_reasoning(text, thinking_prefilled=thinking_prefilled)[1] is not None:
        return ""
    return f"{'' if text.endswith(chr(10)) else chr(10)}</think>\n\n{opening}"


def _apart(low: int, high: int, span: int) -> tuple[int, int]:
    if low != high:
        return low, high
    return (low - 1, high) if high == span else (low, high + 1)
