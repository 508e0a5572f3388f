"""InternVL: `<ref>…</ref><box>[[x1, y1, x2, y2]]</box>` on the 0-1000 scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from egm.boxes import Box
from egm.codecs import targets
from egm.codecs.parsing import reading
from egm.codecs.prompts import neutralise, user_turn
from egm.types import Grounding, Message


@dataclass(frozen=True, slots=True)
class InternVL:
    """Codec of InternVL.

    Example:
        >>> InternVL().parse("<ref>the man</ref><box>[[100, 200, 300, 400]]</box>", size=(640, 480)).boxes[0].label
        'the man'
    """

    name: ClassVar[str] = "internvl"
    prompts: ClassVar[tuple[str, ...]] = ("grounding", "qwen3")

    def messages(self, phrase: str, *, amodal: bool = False, prompt: str | None = None) -> list[Message]:
        """Ask for the box of a phrase; see `Codec.messages`."""
        return user_turn(phrase, style=self.prompts[0] if prompt is None else prompt, amodal=amodal, tagged=True)

    def target(self, phrase: str, box: Box, *, size: tuple[int, int], rationale: str | None = None) -> str:
        """Write the text to train on; see `Codec.target`."""
        numbers = list(targets.widen(box.to_1000(size), (1000, 1000)))
        answer = f"{_opening(phrase)}{str(numbers)[1:]}]</box>"
        return targets.with_reasoning(answer, rationale, thinking_prefilled=False)

    def cut(self, text: str, phrase: str) -> str:
        """Write what follows reasoning that has lasted long enough; see `Codec.cut`."""
        return targets.close_reasoning(text, _opening(phrase), thinking_prefilled=False)

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
        """Read the box from a text; see `Codec.parse`. Where a decoder has stripped the tags, bare lists are read."""
        return reading.read(
            text,
            scale=reading.Scale(),
            tags_first=True,
            size=size,
            finish_reason=finish_reason,
            amodal=amodal,
            phrase=phrase,
        )


def _opening(phrase: str) -> str:
    """How an answer begins, up to the first coordinate."""
    return f"<ref>{neutralise(phrase).strip()}</ref><box>[["
