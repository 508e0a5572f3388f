"""Qwen2.5-VL: JSON with `bbox_2d` in pixels of the image as the model saw it, after its processor's resize."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from egm.boxes import Box
from egm.codecs import targets
from egm.codecs.parsing import reading
from egm.codecs.prompts import user_turn
from egm.codecs.resize import smart_resize
from egm.types import Grounding, Message

_CELL = 28  # pixels: patches of 14, merged two by two
# Of a side; `egm.codecs.parsing` says why. Its size was chosen on a log that the tests score too (its worst box passes
# the edge by 22 %), so the agreement with that log's known accuracy does not speak for it.
_MARGIN = 0.25


@dataclass(frozen=True, slots=True)
class Qwen25VL:
    """Codec of Qwen2.5-VL.

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
    prompts: ClassVar[tuple[str, ...]] = ("qwen3", "grounding")

    def messages(self, phrase: str, *, amodal: bool = False, prompt: str | None = None) -> list[Message]:
        """Ask for the box of a phrase; see `Codec.messages`."""
        return user_turn(phrase, style=self.prompts[0] if prompt is None else prompt, amodal=amodal)

    def target(self, phrase: str, box: Box, *, size: tuple[int, int], rationale: str | None = None) -> str:
        """Write the text to train on; see `Codec.target`. Pixels round half up."""
        seen = self._seen(size)
        x1, y1, x2, y2 = (
            math.floor(value * span / side + 0.5) for value, span, side in zip(box, seen * 2, size * 2, strict=True)
        )
        answer = targets.json_answer(phrase, targets.widen((x1, y1, x2, y2), seen))
        return targets.with_reasoning(answer, rationale, thinking_prefilled=False)

    def cut(self, text: str, phrase: str) -> str:  # noqa: ARG002 - the label comes after the box
        """Write what follows reasoning that has lasted long enough; see `Codec.cut`."""
        return targets.close_reasoning(text, targets.JSON_OPENING, thinking_prefilled=False)

    def parse(
        self,
        text: str,
        *,
        size: tuple[int, int],
        finish_reason: str = "stop",
        amodal: bool = False,
        seen_size: tuple[int, int] | None = None,
        phrase: str = "",
    ) -> Grounding:
        """Read the box from a text; see `Codec.parse`. Without `seen_size`, `smart_resize` says what the model saw."""
        return reading.read(
            text,
            scale=reading.Scale(seen_size or self._seen(size), margin=_MARGIN),
            size=size,
            finish_reason=finish_reason,
            amodal=amodal,
            phrase=phrase,
        )

    def _seen(self, size: tuple[int, int]) -> tuple[int, int]:
        # The arithmetic of qwen-vl-utils, for a model served behind them.
        return smart_resize(size, factor=_CELL, min_pixels=self.min_pixels, max_pixels=self.max_pixels, least=_CELL)
