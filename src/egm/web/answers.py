"""Answers as the page shows them: boxes with what is known of them, facts in words, and files to take away."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from egm.boxes import Box
from egm.draw import NumberedBoxes, draw_numbered, fitted
from egm.pages.page import readable
from egm.terminal import printable
from egm.types import FAILURE_WORDS, Grounding
from egm.web.asking import Asking, LiveAnswers, Written
from egm.web.pictures import WebPicture

COLOURS: Final = ("#d62a0e", "#0060c0", "#00784f", "#9a4f00", "#8a2be2", "#b0006e", "#006a78", "#4a4a4a")
"""Of boxes, by phrase; each also bears the phrase's number."""
_DRAWN_SIDE: Final = 4096  # pixels of the longer side of a picture that is taken away, so that it takes little memory


@dataclass(frozen=True, slots=True)
class ShownBox:
    """A box on the picture.

    Attributes:
        number: Of its phrase, counted from 1.
        box: In pixels of the picture.
        known: What is known of how sure it is, in words; empty where nothing is.
        is_final: Whether the answer is whole.
    """

    number: int
    box: Box
    known: str = ""
    is_final: bool = True

    @property
    def colour(self) -> str:
        """Of its phrase."""
        return COLOURS[(self.number - 1) % len(COLOURS)]

    @property
    def title(self) -> str:
        """The box in words: corners, and how sure it is."""
        corners = ", ".join(f"{value:.1f}" for value in self.box)
        return f"{corners} ({self.known})" if self.known else corners


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


def shown_answers(written: Sequence[Written], asking: Asking) -> list[ShownAnswer]:
    """Say what there is of each answer."""
    return [show_answer(number, each, votes=asking.votes) for number, each in enumerate(written, start=1)]


def share_name(grounding: Grounding) -> str:
    """What the shares beside an answer and its boxes are: of several votes those that agree, of one answer a mean.

    That is the geometric mean of the probabilities of its tokens, and not the probability that it is right.
    """
    return "mean token probability" if grounding.confidence is None else "votes that agree"


def answer_share(grounding: Grounding) -> float | None:
    """Of an answer: the share of the votes that agree, or else exp(answer_logprob), the mean probability of a token."""
    if grounding.confidence is not None or grounding.answer_logprob is None:
        return grounding.confidence
    return math.exp(min(0.0, grounding.answer_logprob))


def _boxes(number: int, grounding: Grounding) -> tuple[ShownBox, ...]:
    usual = answer_share(grounding) if grounding.expect != "all" else None
    shares = (usual if each.confidence is None else each.confidence for each in grounding.boxes)
    known = ("" if share is None else f"{share_name(grounding)} {share:.0%}" for share in shares)
    return tuple(ShownBox(number, box, words) for box, words in zip(grounding.answered, known, strict=False))


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
    if grounding.failure is None and (share := answer_share(grounding)) is not None:
        facts.append((share_name(grounding), f"{share:.0%}"))
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
    """What one model answered to one asking, whole; without the picture, for which there is one place (`Uploads`).

    Attributes:
        picture: What the picture is asked for by.
        file: What the picture is called.
        asking: What was asked.
        model: Who answered.
        written: The answer to each phrase.
    """

    picture: str
    file: str
    asking: Asking
    model: str
    written: tuple[Written, ...]

    @classmethod
    def of(cls, asked: LiveAnswers, picture: str) -> PastAnswer:
        """Keep what a model was asked and has written, about the picture of a name."""
        written = tuple(
            replace(each, grounding=None if each.grounding is None else replace(each.grounding, image=None), partial=())
            for each in asked.written()
        )
        return cls(picture, asked.picture.name, asked.asking, asked.model.name, written)

    @property
    def groundings(self) -> list[Grounding]:
        """The answers that are whole."""
        return [each.grounding for each in self.written if each.completion is not None and each.grounding is not None]

    def lines(self) -> str:
        """JSON Lines, one object an answer, as `egm ground --json` prints them."""
        about = {"image": self.file, "amodal": self.asking.amodal, "model": self.model}
        return "".join(json.dumps({**about, **grounding.to_dict()}) + "\n" for grounding in self.groundings)

    def shown(self) -> list[ShownAnswer]:
        """The answer to each phrase as the page shows it."""
        return shown_answers(self.written, self.asking)

    def drawn(self, picture: WebPicture) -> bytes:
        """The picture with the boxes of all phrases, which stand below it, as PNG; a very large one smaller."""
        image, scale = fitted(picture.image, _DRAWN_SIDE)
        answers = [
            NumberedBoxes(
                each.phrase if each.boxes else f"{each.phrase} ({each.state})",
                tuple(Box(*(scale * corner for corner in shown.box)) for shown in each.boxes),
                each.colour,
            )
            for each in self.shown()
        ]
        stream = io.BytesIO()
        draw_numbered(image, answers).save(stream, "PNG")
        return stream.getvalue()


def title_of(answers: Sequence[PastAnswer]) -> str:
    """Name what was asked at once, for the list of past answers."""
    asking = answers[0].asking
    first, more = printable(asking.phrases[0])[:60], len(asking.phrases) - 1
    asked = f"{first} (and {more} more)" if more else first
    return f"{asked}: {printable(answers[0].file)}, {' and '.join(answer.model for answer in answers)}"
