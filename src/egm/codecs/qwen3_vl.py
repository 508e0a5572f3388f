"""Qwen3-VL, EGM trained on it, and Qwen3.5: JSON with `bbox_2d` on the 0-1000 scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from egm.codecs import targets
from egm.codecs.base import Codec
from egm.codecs.parsing.forms import BOX_START_TAGS, BOX_TAGS, JSON_LIST, Form
from egm.codecs.registry import register_codec


@register_codec
@dataclass(frozen=True, slots=True)
class Qwen3VL(Codec):
    r"""Codec of Qwen3-VL Thinking and of Qwen3.5 where the chat template opens `<think>`, and so of EGM's models.

    Example:
        >>> codec = Qwen3VL()
        >>> text = 'At the left.\n</think>\n\n[{"bbox_2d": [100, 200, 300, 400], "label": "the man"}]'
        >>> codec.parse(text, size=(640, 480)).box
        Box(x1=64.0, y1=96.0, x2=192.0, y2=192.0)
    """

    name: ClassVar[str] = "qwen3_vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
    thinking_prefilled: ClassVar[bool] = True
    tail_stops: ClassVar[tuple[str, ...]] = targets.JSON_TAIL_STOPS
    form: ClassVar[Form] = JSON_LIST
    other_forms: ClassVar[tuple[Form, ...]] = (BOX_TAGS, BOX_START_TAGS)
    none: ClassVar[str | None] = "[]"
    proven: ClassVar[bool] = True


@register_codec
@dataclass(frozen=True, slots=True)
class Qwen3VLInstruct(Qwen3VL):
    """Codec of Qwen3-VL Instruct and of Qwen3.5 where the chat template opens no `<think>`: all it says is answer.

    Example:
        >>> Qwen3VLInstruct().parse('[{"bbox_2d": [100, 200, 300, 400]}]', size=(640, 480)).box
        Box(x1=64.0, y1=96.0, x2=192.0, y2=192.0)
    """

    name: ClassVar[str] = "qwen3_vl_instruct"
    thinking_prefilled: ClassVar[bool] = False
