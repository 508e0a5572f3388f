"""What a codec is: one model family's convention for being asked, for being taught, and for being read."""

from __future__ import annotations

from typing import ClassVar, Protocol

from egm.boxes import Box
from egm.types import Grounding, Message


class Codec(Protocol):
    """One model family's convention.

    Coordinates leave and enter a codec as pixels of the upright original image; the scale a model speaks stays inside.

    Attributes:
        name: The name that `get_codec` knows.
        prompts: Known prompt styles; the first is the default.
    """

    name: ClassVar[str]
    prompts: ClassVar[tuple[str, ...]]

    def messages(self, phrase: str, *, amodal: bool = False, prompt: str | None = None) -> list[Message]:
        """Ask for the box of a phrase.

        Args:
            phrase: What to find. Control tokens in it become words, see `neutralise`.
            amodal: Ask for the box of the whole object, its hidden part too.
            prompt: One of `prompts`; None takes the first.

        Returns:
            One user turn, `[{"type": "image"}, {"type": "text", "text": ...}]`.

        Raises:
            EgmError: If the prompt style is unknown.
        """
        ...

    def target(self, phrase: str, box: Box, *, size: tuple[int, int], rationale: str | None = None) -> str:
        """Write the text to train on: all that follows the generation prompt, without the end-of-turn token.

        A side that rounds to nothing is written one unit wide, so that `parse` accepts every target of a modal box.

        Args:
            phrase: What was asked.
            box: The true box in pixels. One that leaves the frame leaves the scale, which only amodal reading accepts.
            size: Width and height of the image in pixels.
            rationale: Reasoning to put before the answer, if any. A `</think>` inside it becomes a word.
        """
        ...

    def cut(self, text: str, phrase: str) -> str:
        """Write what follows a text whose reasoning has lasted long enough.

        Args:
            text: Everything generated so far.
            phrase: What was asked.

        Returns:
            What closes the reasoning and begins the answer, as `target` writes it, up to the first coordinate; nothing
            if the text holds no reasoning that is still open.
        """
        ...

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
        """Read the box from a model's text, or the reason why there is none; `egm.codecs.parsing` states the rules.

        Never raises, whatever the text; takes time linear in its length.

        Args:
            text: Everything generated.
            size: Width and height of the upright original image in pixels.
            finish_reason: "length" if the token limit cut the text off.
            amodal: Whether the box may leave the frame by up to one frame on each side.
            seen_size: Width and height of the image as the model saw it; only codecs that speak pixels use it.
            phrase: What was asked, to be carried along.
        """
        ...
