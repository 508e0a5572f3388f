"""Answers as the page shows them: boxes with what is known of them, facts in words, and files to take away."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from egm.boxes import Box
from egm.draw import side_by_side
from egm.pages.page import readable
from egm.terminal import printable
from egm.types import FAILURE_WORDS, Grounding
from egm.web.asking import Asking, LiveAnswers, Written

COLOURS: Final = ("#d62a0e", "#0060c0", "#00784f", "#9a4f00", "#8a2be2", "#b0006e", "#006a78", "#4a4a4a")
"""Of boxes, by phrase; each also bears the phrase's number."""


@dataclass(frozen=True, slots=True)
class ShownBox:
    """A box on the picture.

    Attributes:
        number: Of its phrase, counted from 1.
        box: In pixels of the picture.
        confidence: As `Grounding` tells it; None where nobody knows.
        is_final: Whether the answer is whole.
    """

    number: int
    box: Box
    confidence: float | None = None
    is_final: bool = True

    @property
    def colour(self) -> str:
        """Of its phrase."""
        return COLOURS[(self.number - 1) % len(COLOURS)]

    @property
    def title(self) -> str:
        """The box in words: corners and confidence."""
        corners = ", ".join(f"{value:.1f}" for value in self.box)
        return corners if self.confidence is None else f"{corners} ({self.confidence:.0%})"


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """The answer to one phrase, or what of it is there.

    Attributes:
        number: Of the phrase, counted from 1.
        phrase: The phrase.
        state: In a few words: what came of it, or how far it is.
        is_good: Whether it is an answer; None while it is not whole.
        reasoning: What the model thinks before it answers, as far as it is written.
        text: What it writes after that.
        boxes: The boxes.
        facts: Names and values: seconds, tokens, votes.
    """

    number: int
    phrase: str
    state: str
    is_good: bool | None
    reasoning: str
    text: str
    boxes: tuple[ShownBox, ...]
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def colour(self) -> str:
        """Of the phrase."""
        return COLOURS[(self.number - 1) % len(COLOURS)]


def show_answer(number: int, written: Written, *, votes: int) -> ShownAnswer:
    """Say what there is of an answer.

    Args:
        number: Of the phrase, counted from 1.
        written: What there is.
        votes: How many were asked for.
    """
    grounding, phrase = written.grounding, printable(written.phrase)
    text = "" if grounding is None else grounding.text
    reasoning = "" if grounding is None else grounding.reasoning or ("" if _has_answer(grounding) else text)
    after = text[text.rfind("</think>") + len("</think>") :] if "</think>" in text else "" if reasoning else text
    shown: dict[str, Any] = {"reasoning": readable(reasoning), "text": readable(after)}
    if written.error:
        return ShownAnswer(number, phrase, printable(written.error), False, boxes=(), **shown)
    if written.completion is None or grounding is None:
        boxes = tuple(ShownBox(number, box, is_final=False) for partial in written.partial for box in partial.answered)
        so_far = len(written.partial)
        state = "waits for its turn" if not so_far else "thinks" if not boxes else "writes"
        if votes > 1 and so_far:
            state = f"{state}, vote {so_far} of up to {votes}"
        return ShownAnswer(number, phrase, state, None, boxes=boxes, **shown)
    return ShownAnswer(
        number,
        phrase,
        _outcome(grounding),
        grounding.failure is None,
        boxes=_boxes(number, grounding),
        facts=_facts(written, grounding),
        **shown,
    )


def box_confidence(grounding: Grounding) -> float | None:
    """How sure an answer of one box is: the share of votes, or else the probability of the answer's tokens."""
    if grounding.confidence is not None or grounding.answer_logprob is None:
        return grounding.confidence
    return math.exp(min(0.0, grounding.answer_logprob))


def _boxes(number: int, grounding: Grounding) -> tuple[ShownBox, ...]:
    sure = [each.confidence for each in grounding.boxes]
    usual = box_confidence(grounding) if grounding.expect != "all" else None
    known = (sure[place] if place < len(sure) and sure[place] is not None else usual for place in range(len(sure)))
    return tuple(ShownBox(number, box, share) for box, share in zip(grounding.answered, known, strict=False))


def _has_answer(grounding: Grounding) -> bool:
    return bool(grounding.boxes) or "</think>" in grounding.text or "{" in grounding.text


def _outcome(grounding: Grounding) -> str:
    if grounding.is_none:
        return "nothing matches"
    if grounding.failure is not None:
        return f"no box: {FAILURE_WORDS[grounding.failure]}"
    count = len(grounding.answered)
    return "1 box" if count == 1 else f"{count} boxes"


def _facts(written: Written, grounding: Grounding) -> tuple[tuple[str, str], ...]:
    completion = written.completion
    assert completion is not None
    facts = []
    if grounding.failure is None and (sure := box_confidence(grounding)) is not None:
        facts.append(("confidence", f"{sure:.0%}"))
    facts.append(("latency", f"{grounding.seconds:.2f} s"))
    if completion.first_token_seconds is not None:
        facts.append(("first token", f"{completion.first_token_seconds:.2f} s"))
    if grounding.tokens is not None:
        thought = completion.reasoning_tokens
        facts.append(("tokens", f"{grounding.tokens}" + ("" if thought is None else f", {thought} of them reasoning")))
    facts.append(("votes", f"{grounding.votes}"))
    return tuple(facts)


@dataclass(frozen=True, slots=True)
class PastAnswer:
    """What one model answered to one asking, whole.

    Attributes:
        asking: What was asked.
        model: Who answered.
        written: The answer to each phrase.
    """

    asking: Asking
    model: str
    written: tuple[Written, ...]

    @classmethod
    def of(cls, asked: LiveAnswers) -> PastAnswer:
        """Keep what a model was asked and has written."""
        return cls(asked.asking, asked.model.name, tuple(asked.written()))

    @property
    def groundings(self) -> list[Grounding]:
        """The answers that are whole."""
        return [each.grounding for each in self.written if each.completion is not None and each.grounding is not None]

    def lines(self) -> str:
        """JSON Lines, one object an answer, as `egm ground --json` prints them."""
        about = {"image": self.asking.picture.name, "amodal": self.asking.amodal, "model": self.model}
        return "".join(json.dumps({**about, **grounding.to_dict()}) + "\n" for grounding in self.groundings)

    def drawn(self) -> bytes:
        """The picture with boxes and phrases, as PNG, one panel a phrase."""
        stream = io.BytesIO()
        panels = [grounding.draw() for grounding in self.groundings] or [self.asking.picture.image]
        side_by_side(panels).save(stream, "PNG")
        return stream.getvalue()


def title_of(answers: Sequence[PastAnswer]) -> str:
    """Name what was asked at once, for the list of past answers."""
    asking = answers[0].asking
    first, more = printable(asking.phrases[0])[:60], len(asking.phrases) - 1
    asked = f"{first} (and {more} more)" if more else first
    return f"{asked}: {printable(asking.picture.name)}, {' and '.join(answer.model for answer in answers)}"
