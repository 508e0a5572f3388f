"""The blind check: a model that sees picture, phrase and rationale, but not the box, has to find it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final, Self

from egm.backends.base import Backend, GenerationSettings
from egm.boxes import Box, iou
from egm.codecs import Codec
from egm.codecs.prompts import neutralise
from egm.errors import BoxError, EgmError
from egm.rationales.lane import Lane
from egm.rationales.teachers import Asked, LoadedSample, most_tokens
from egm.types import HIT_IOU, Completion

NAME: Final = "blind"
"""What decisions and reports call it, beside the filters."""
REASON: Final = "a model that saw the rationale, and not the box, did not find the object"
"""What is wrong with what it drops."""
_NUMBER = r"\s*(-?\d{1,5}(?:\.\d{1,4})?)\s*"
_FOUR = re.compile(rf"(?:,?\s+at)?\s*[\[(]{{1,2}}{','.join([_NUMBER] * 4)}[\])]{{1,2}}")


class BlindCheck:
    """Asks a second model for the box; a context manager that gives up what is under way on the way out.

    Args:
        backend: What answers; it is left open.
        codec: How it is asked and read.
        settings: How text is generated; greedy by default.
        prompt: The codec's prompt style; None takes its default.
        prefill: Give the rationale as the model's own reasoning, up to where the box was taken out, for it to go on;
            for models that think first, on a server that goes on with an answer. Else it stands in the question.
        batch: Most requests that a model in this process answers together.
        engine: What else decides its answers, to be kept and compared.
    """

    def __init__(
        self,
        backend: Backend,
        codec: Codec,
        *,
        settings: GenerationSettings | None = None,
        prompt: str | None = None,
        prefill: bool = False,
        batch: int = 1,
        engine: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self._codec, self._prompt = backend.model, codec, prompt
        codec.messages("anything", prompt=prompt)  # so that an unknown style is refused now
        if prefill and not codec.thinking_prefilled:
            raise EgmError(f"models of {codec.name} do not begin with reasoning, so none can be given them: no prefill")
        self._prefill = prefill
        self.settings = settings or GenerationSettings(max_new_tokens=2048)
        self._lane = Lane(backend, self.settings, batch=batch)
        self._engine = dict(engine or {})

    def ask(self, sample: LoadedSample, rationale: str) -> Asked:
        """Make the question about a sample, without sending it."""
        row = sample.sample
        assert row.box is not None
        assert sample.picture is not None
        messages = self._codec.messages(row.phrase, amodal=row.amodal, prompt=self._prompt)
        if self._prefill:
            messages = [*messages, {"role": "assistant", "content": self._thought(sample, rationale)}]
        else:
            hint = neutralise(without_box(rationale, row.box, sample.size, self._codec)).strip()
            said = {"type": "text", "text": f"\n\nSomebody who looked at the picture reasoned: {hint}"}
            messages = [{**messages[0], "content": [*messages[0]["content"], said]}]
        request = self._lane.backend.make_request(
            messages, sample.picture, source=sample.source, seed_index=sample.index
        )
        request = replace(request, continue_final_message=self._prefill)
        return Asked(partial(self._lane.submit, request), most_tokens(request, self.settings))

    def _thought(self, sample: LoadedSample, rationale: str) -> str:
        """The rationale as reasoning that is still open."""
        assert sample.sample.box is not None
        hidden = _hidden(rationale, sample.sample.box, sample.size, self._codec)
        return neutralise(rationale[: hidden[0].start()] if hidden else rationale).strip()

    def read(self, sample: LoadedSample, reply: Completion) -> tuple[Box | None, float]:
        """Read the box of a reply, and hold it against the true one.

        Returns:
            The box in pixels, None where the reply holds none, and its IoU with the true box.
        """
        row = sample.sample
        assert row.box is not None
        grounding = self._codec.parse(
            reply.text,
            size=sample.size,
            finish_reason=reply.finish_reason,
            amodal=row.amodal,
            seen_size=reply.seen_size,
        )
        return grounding.box, 0.0 if grounding.box is None else iou(grounding.box, row.box)

    def identity(self) -> dict[str, Any]:
        """What tells its answers from those of another check, JSON-ready."""
        kept = ("max_new_tokens", "temperature", "top_p", "top_k", "seed")
        settings = {name: value for name, value in asdict(self.settings).items() if name in kept}
        settings["prefill"] = self._prefill
        return {"model": self.name, "codec": self._codec.to_dict(), "settings": settings, **self._engine}

    def close(self) -> None:
        """Give up what is under way; the backend stays open."""
        self._lane.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def why_not_found(box: Box | None, overlap: float) -> str | None:
    """Say why a blind answer counts against a rationale; None where it found the object."""
    if box is None:
        return "the blind check gave no box"
    return None if overlap >= HIT_IOU else f"the blind check's box has an IoU of {overlap:.2f} with the true one"


def without_box(rationale: str, box: Box, size: tuple[int, int], codec: Codec) -> str:
    """Take the true box out of a rationale: each four numbers in brackets that are a hit on it.

    Where it stands more than once, the first stays: it introduces one of those that could be meant, as the boxes of the
    others do, and which of them it is has to follow from the words.

    Args:
        rationale: The text.
        box: The true box in pixels.
        size: Width and height of the picture in pixels.
        codec: On whose scale the text's numbers are.

    Example:
        >>> from egm.codecs import get_codec
        >>> text = "One cup is at (10,10,20,20), one at (50,50,90,90). The red one is the latter, at (50, 50, 90, 90)."
        >>> without_box(text, Box(50, 50, 90, 90), (1000, 1000), get_codec("qwen3_vl"))
        'One cup is at (10,10,20,20), one at (50,50,90,90). The red one is the latter.'
    """
    for found in reversed(_hidden(rationale, box, size, codec)):
        rationale = rationale[: found.start()] + rationale[found.end() :]
    return rationale


def _hidden(rationale: str, box: Box, size: tuple[int, int], codec: Codec) -> list[re.Match[str]]:
    """Where the true box stands, but for the first of several places."""
    span = codec.scale(size, None).span
    factors = tuple(side / units for side, units in zip(size * 2, span * 2, strict=True))

    def is_hit(found: re.Match[str]) -> bool:
        try:
            written = Box(*(float(number) * factor for number, factor in zip(found.groups(), factors, strict=True)))
        except BoxError:
            return False
        return iou(written, box) >= HIT_IOU

    hits = [found for found in _FOUR.finditer(rationale) if is_hit(found)]
    return hits[1:] or hits
