"""Qwen2.5-VL, and MiMo-VL after it: JSON with `bbox_2d` in pixels of the image as the model saw it, resized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from egm.codecs import targets
from egm.codecs.base import Codec
from egm.codecs.parsing.forms import BOX_START_TAGS, JSON_LIST, Form
from egm.codecs.parsing.reading import Scale
from egm.codecs.registry import register_codec
from egm.codecs.resize import smart_resize

_CELL = 28  # pixels: patches of 14, merged two by two
# Of a side; `egm.codecs.parsing` says why. Its size was chosen on a log that the tests score too (its worst box passes
# the edge by 22 %), so the agreement with that log's known accuracy does not speak for it.
_MARGIN = 0.25


@register_codec
@dataclass(frozen=True, slots=True)
class Qwen25VL(Codec):
    """Codec of Qwen2.5-VL. Where nobody says what size the model saw, `smart_resize` does.

    Attributes:
        min_pixels: The processor's `min_pixels`.
        max_pixels: The processor's `max_pixels`.

    Example:
        >>> codec = Qwen25VL()
        >>> codec.parse('{"bbox_2d": [161, 119, 322, 238]}', size=(640, 480)).box
        Box(x1=160.0, y1=120.0, x2=320.0, y2=240.0)
    """

    min_pixels: int = 4 * _CELL * _CELL
    max_pixels: int = 16384 * _CELL * _CELL

    name: ClassVar[str] = "qwen2_5_vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)
    speaks_pixels: ClassVar[bool] = True
    tail_stops: ClassVar[tuple[str, ...]] = targets.JSON_TAIL_STOPS
    form: ClassVar[Form] = JSON_LIST
    other_forms: ClassVar[tuple[Form, ...]] = (BOX_START_TAGS,)  # fine-tuned ones write these, in pixels too
    none: ClassVar[str | None] = "[]"
    proven: ClassVar[bool] = True

    def scale(self, size: tuple[int, int], seen_size: tuple[int, int] | None) -> Scale:
        """Say what coordinates mean: pixels of the image as the model saw it; see `Codec.scale`."""
        # The arithmetic of qwen-vl-utils, for a model served behind them.
        limits = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        seen = seen_size or smart_resize(size, factor=_CELL, least=_CELL, **limits)
        return Scale(seen, margin=_MARGIN)
