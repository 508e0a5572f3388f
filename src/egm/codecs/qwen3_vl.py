"""Qwen3-VL, and EGM trained on it: JSON with `bbox_2d` on the 0-1000 scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from egm.boxes import Box
from egm.codecs import targets
from egm.codecs.parsing import reading
from egm.codecs.prompts import user_turn
from egm.types import Grounding, Message


@dataclass(frozen=True, slots=True)
class Qwen3VL:
    r"""Codec of Qwen3-VL.

    Attributes:
        thinking_prefilled: Whether the chat template opens `<think>` itself: true of the Thinking models, and so of
            EGM's, false of the Instruct models.

    Example:
        >>> codec = Qwen3VL()
        >>> text = 'At the left.\n</think>\n\n[{"bbox_2d": [100, 200, 300, 400], "label": "the man"}]'
        >>> codec.parse(text, size=(640, 480)).box
        Box(x1=64.0, y1=96.0, x2=192.0, y2=192.0)
    """

    thinking_prefilled: bool = True

    name: ClassVar[str] = "qwen3_vl"
    prompts: ClassVar[tuple[str, ...]] = ("qwen3", "grounding")

    def messages(self, phrase: str, *, amodal: bool = False, prompt: str | None = None) -> list[Message]:
        """Ask for the box of a phrase; see `Codec.messages`."""
        return user_turn(phrase, style=self.prompts[0] if prompt is None else prompt, amodal=amodal)

    def target(self, phrase: str, box: Box, *, size: tuple[int, int], rationale: str | None = None) -> str:
        """Write the text to train on; see `Codec.target`."""
        answer = targets.json_answer(phrase, targets.widen(box.to_1000(size), (1000, 1000)))
        return targets.with_reasoning(answer, rationale, thinking_prefilled=self.thinking_prefilled)

    def cut(self, text: str, phrase: str) -> str:  # noqa: ARG002 - the label comes after the box
        """Write what follows reasoning that has lasted long enough; see `Codec.cut`."""
        return targets.close_reasoning(text, targets.JSON_OPENING, thinking_prefilled=self.thinking_prefilled)

    def parse(
        self,
        text: str,
        *,
        size: tuple[int, int],
        finish_reason: str = "stop",
        amodal: bool = False,
        seen_size: tuple[int, int] | None = None,  # noqa: ARG002 - a relative scale does not need it
        phrase: str = "",
    ) -> Grounding:
        """Read the box from a text; see `Codec.parse`."""
        return reading.read(
            text,
            scale=reading.Scale(),
            thinking_prefilled=self.thinking_prefilled,
            size=size,
            finish_reason=finish_reason,
            amodal=amodal,
            phrase=phrase,
        )
