"""An engine's answers beside the reference's: where texts part, how sure the reference was there, how boxes differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from egm.boxes import Box, iou
from egm.codecs import Codec
from egm.doctor.pictures import Picture
from egm.doctor.recording import RecordedAnswer, Recording
from egm.types import Completion

SURE: Final = 3.0
"""Nats by which the reference preferred a token (20 times as likely): from there on, rounding does not pass it over."""
UNSURE: Final = 1.5
"""Nats up to which an engine that rounds may go another way; 8-bit weights passed over 1.1 at most."""
AGREEING: Final = 0.8
"""The IoU from which on two boxes count as the same answer."""
THINK_END: Final = "</think>"


@dataclass(frozen=True, slots=True)
class AnswerComparison:
    """One picture's answer, beside the reference's.

    Attributes:
        picture: The picture's name.
        size: Its width and height in pixels.
        place: The first character at which the texts part; None where they are the same.
        lead: How sure the reference was of what stands there, in nats; None where that is not known.
        box: The engine's box in pixels.
        expected: The reference's.
        iou: Of both; None where one is missing.
        prompt_tokens: How many tokens more the engine's prompt has; None where either does not count them.
        logprob: By how much the engine's mean log-probability is higher, where the texts are the same and it tells.
    """

    picture: str
    size: tuple[int, int]
    place: int | None
    lead: float | None
    box: Box | None
    expected: Box | None
    iou: float | None
    prompt_tokens: int | None
    logprob: float | None

    @property
    def same(self) -> bool:
        """Whether the texts are the same."""
        return self.place is None

    @property
    def sure(self) -> bool:
        """Whether the engine went another way where the reference was sure."""
        return self.lead is not None and self.lead > SURE

    @property
    def agrees(self) -> bool:
        """Whether the boxes are the same answer, or neither has one."""
        return self.box is None if self.expected is None else self.iou is not None and self.iou >= AGREEING


def first_difference(text: str, other: str) -> int | None:
    """Return the first place at which two texts part; None where they are the same.

    Example:
        >>> first_difference("ab", "ab"), first_difference("ab", "ac"), first_difference("ab", "abc")
        (None, 1, 2)
    """
    if text == other:
        return None
    length = min(len(text), len(other))
    return next((place for place in range(length) if text[place] != other[place]), length)


def parting(text: str, expected: RecordedAnswer, *, cut: bool = False) -> tuple[int | None, float | None]:
    """Say where a text parts from the reference's, and how sure the reference was there.

    Args:
        text: The engine's.
        expected: The reference's answer.
        cut: Whether the engine's was cut off, so that it may end before the reference's.
    """
    place = first_difference(expected.text, text)
    ended = place is not None and place >= min(len(text), len(expected.text))
    if ended and (cut or (expected.finish_reason == "length" and len(text) > len(expected.text))):
        return None, None
    return place, None if place is None else expected.lead_at(place)


def compare_answers(
    answers: Mapping[str, Completion], recording: Recording, pictures: Sequence[Picture], codec: Codec
) -> list[AnswerComparison]:
    """Hold answers against the reference's, one comparison a picture that was answered."""
    found = []
    for picture in pictures:
        if (reply := answers.get(picture.name)) is None:
            continue
        expected = recording.answer_to(picture)
        place, lead = parting(reply.text, expected)
        box = read_box(codec, reply.text, reply.finish_reason, picture, expected)
        other = read_box(codec, expected.text, expected.finish_reason, picture, expected)
        more = None
        if reply.prompt_tokens is not None and expected.prompt_tokens is not None:
            more = reply.prompt_tokens - expected.prompt_tokens
        logprob = None
        if place is None and reply.logprob is not None and expected.logprob is not None:
            logprob = reply.logprob - expected.logprob
        overlap = None if box is None or other is None else iou(box, other)
        found.append(
            AnswerComparison(picture.name, picture.image.size, place, lead, box, other, overlap, more, logprob)
        )
    return found


def read_box(codec: Codec, text: str, finish_reason: str, picture: Picture, expected: RecordedAnswer) -> Box | None:
    """Read the box of a text; one whose reasoning is missing is read as an answer all the same."""
    if codec.thinking_prefilled and THINK_END not in text and THINK_END in expected.text:
        text = f"{THINK_END}\n\n{text}"
    return codec.parse(
        text, size=picture.image.size, finish_reason=finish_reason, seen_size=expected.seen_size, amodal=True
    ).box
