"""InternVL: `<ref>…</ref><box>[[x1, y1, x2, y2]]</box>` on the 0-1000 scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from egm.codecs.base import Codec
from egm.codecs.prompts import neutralise
from egm.codecs.registry import register_codec


@register_codec
@dataclass(frozen=True, slots=True)
class InternVL(Codec):
    """Codec of InternVL. Where a decoder has stripped the tags from a text, bare lists are read.

    Example:
        >>> InternVL().parse("<ref>the man</ref><box>[[100, 200, 300, 400]]</box>", size=(640, 480)).boxes[0].label
        'the man'
    """

    name: ClassVar[str] = "internvl"
    model_types: ClassVar[tuple[str, ...]] = ("internvl",)
    prompts: ClassVar[tuple[str, ...]] = ("grounding", "qwen3")
    tags_first: ClassVar[bool] = True

    def opening(self, phrase: str) -> str:
        """Write how an answer begins; see `Codec.opening`."""
        return f"<ref>{neutralise(phrase).strip()}</ref><box>[["

    def answer(self, phrase: str, numbers: tuple[int, int, int, int]) -> str:
        """Write a whole answer; see `Codec.answer`."""
        return f"{self.opening(phrase)}{', '.join(map(str, numbers))}]]</box>"
