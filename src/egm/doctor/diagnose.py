"""The verdict: is what differs between an engine and the reference rounding, or a defect, and which?

**Rounding or displacement.** An engine that computes in other numbers adds noise to log-probabilities. Noise passes
over a token only where the reference was hardly surer of it than of another, and moves boxes in no direction. So an
answer that parts from the reference's is judged by the *lead* of the token that was passed over: the nats by which
the reference preferred it. The rule:

1. *Displacement* if two answers or more part where the lead is above 3 nats (`SURE`), or if boxes have a common shift,
   factor, mirror or order: above 2 thousandths of the frame and more than three standard errors from none.
   So it is if more than 80 % of the answers part within their first tenth, whatever the leads.
2. *Rounding* if no answer parts above 1.5 nats (`UNSURE`), or one alone does, and at least half of the boxes agree.
   Weights rounded to 8 bits, all of them, passed over 1.1 nats at most.
3. Else it cannot be told.

Where the reference tells no leads, boxes alone decide: rounding if at least 80 % of them agree (IoU 0.8), displacement
if fewer than half do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from statistics import median
from typing import Any, Final

from egm.codecs import Codec
from egm.doctor.compare import SURE, THINK_END, UNSURE, AnswerComparison, compare_answers, first_difference, parting
from egm.doctor.defects import known_defects
from egm.doctor.geometry import common_components, fitting_map
from egm.doctor.pictures import Picture
from egm.doctor.prompts import prompt_defect
from egm.doctor.recording import RecordedAnswer, Recording
from egm.doctor.rounds import TOGETHER, Observation
from egm.doctor.simulate import NAMES
from egm.types import Completion

AGREE, DISAGREE = 0.8, 0.5
FEWEST: Final = 4
"""Answers that a verdict takes, at least."""
_FITS: Final = 3.0  # nats by which answers have to side with a simulated defect
_SHARE: Final = 0.8  # of what they say about it
_NAMED: Final = 3  # pictures of a note


class EngineVerdict(IntEnum):
    """What came of it; the value is the exit code."""

    RIGHT = 0
    WRONG = 1
    CANNOT_TELL = 2


@dataclass(frozen=True, slots=True)
class NamedDefect:
    """A defect that fits what was seen.

    Attributes:
        name: Its name in the table of defects.
        seen: What was seen of it.
    """

    name: str
    seen: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor says.

    Attributes:
        verdict: Right, wrong, or not to be told.
        reason: Why, in a line.
        findings: The defects that fit, the plainest first; none unless it is wrong.
        notes: What else a reader should know, and what is no reason for a verdict.
        comparisons: One a picture.
    """

    verdict: EngineVerdict
    reason: str
    findings: tuple[NamedDefect, ...]
    notes: tuple[str, ...]
    comparisons: tuple[AnswerComparison, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, with the advice and sources of each finding."""
        return {
            "verdict": self.verdict.name.lower(),
            "exit_code": int(self.verdict),
            "reason": self.reason,
            "findings": [asdict(known_defects()[one.name]) | {"seen": one.seen} for one in self.findings],
            "notes": list(self.notes),
            "pictures": [
                {
                    **{name: getattr(one, name) for name in ("picture", "place", "lead", "iou", "logprob")},
                    "size": list(one.size),
                    "more_prompt_tokens": one.prompt_tokens,
                    "box": None if one.box is None else [round(value, 2) for value in one.box],
                    "expected": None if one.expected is None else [round(value, 2) for value in one.expected],
                }
                for one in self.comparisons
            ],
        }


def diagnose(seen: Observation, recording: Recording, pictures: Sequence[Picture], codec: Codec) -> Diagnosis:
    """Judge what an engine answered; the rule is this module's.

    Args:
        seen: What it answered.
        recording: What the reference answered.
        pictures: The pictures that were asked.
        codec: How both are read.

    Raises:
        EgmError: If the recording lacks a picture.
    """
    lost = _reasoning_lost(seen, recording)
    expected = _without_reasoning(recording) if lost else recording
    comparisons = compare_answers(seen.alone, expected, pictures, codec)
    found = [lost] if lost else []
    prompt = prompt_defect(comparisons, recording)
    moved = any(not one.same for one in comparisons)
    notes = _notes(seen, recording, comparisons)
    if prompt is not None and moved:
        found.append(NamedDefect(*prompt))
    elif prompt is not None:
        notes.append(f"{prompt[1]}, but all answers are the reference's: the engine only counts otherwise")
    changing = {} if lost else _changing(seen, recording)
    found += _rounds(seen, changing)
    if (stale := _stale(seen, recording, pictures)) is not None:
        found.append(stale)
    apart = {twin for picture in pictures if stale and (twin := picture.name) and picture.recipe.twin}
    rest = [one for one in comparisons if one.picture not in apart]
    found += _of_boxes(rest)
    verdict, reason = _judge(rest, expected)
    if verdict is EngineVerdict.WRONG:
        steady = [one for one in rest if not any(one.picture in apart for apart in changing.values())]
        if (simulated := _simulated(seen, expected, steady)) is not None:
            found.insert(0, simulated)
        elif not found:
            found.append(_of_texts(seen, expected, rest))
    if found:
        verdict, reason = EngineVerdict.WRONG, known_defects()[found[0].name].title
    elif len(comparisons) < FEWEST or len(comparisons) < 0.75 * len(pictures):
        verdict, reason = EngineVerdict.CANNOT_TELL, f"{len(comparisons)} of {len(pictures)} pictures were answered"
    return Diagnosis(verdict, reason, tuple(found), tuple(notes), tuple(comparisons))


def _judge(comparisons: Sequence[AnswerComparison], recording: Recording) -> tuple[EngineVerdict, str]:
    """Tell rounding from displacement by the leads, or by boxes where there are none."""
    apart = [one for one in comparisons if not one.same]
    if not apart:
        return EngineVerdict.RIGHT, f"all {len(comparisons)} texts are the reference's"
    leads = sorted(one.lead for one in apart if one.lead is not None)
    agreeing = sum(one.agrees for one in comparisons)
    boxes = f"{agreeing} of {len(comparisons)} boxes agree"
    if len(leads) < len(apart):
        share = agreeing / len(comparisons)
        if share >= AGREE:
            return EngineVerdict.RIGHT, f"rounding: {boxes}, without a common direction"
        return (EngineVerdict.WRONG if share < DISAGREE else EngineVerdict.CANNOT_TELL), boxes
    if len(early := _early(comparisons, recording)) > _SHARE * len(comparisons):
        return EngineVerdict.WRONG, f"{len(early)} of {len(comparisons)} texts are others from the beginning"
    sure, doubtful = sum(lead > SURE for lead in leads), sum(lead > UNSURE for lead in leads)
    texts = f"{len(apart)} of {len(comparisons)} texts part, at leads up to {leads[-1]:.1f} nats; {boxes}"
    if sure >= 2:
        return EngineVerdict.WRONG, texts
    boxed = [one for one in comparisons if one.expected is not None]
    scattered = len(boxed) >= FEWEST and sum(one.agrees for one in boxed) < DISAGREE * len(boxed)
    right = doubtful <= 1 and not scattered
    return (EngineVerdict.RIGHT, f"rounding: {texts}") if right else (EngineVerdict.CANNOT_TELL, texts)


def _reasoning_lost(seen: Observation, recording: Recording) -> NamedDefect | None:
    thought = [answer for answer in recording.answers if THINK_END in answer.text and answer.picture in seen.alone]
    missing = [answer for answer in thought if THINK_END not in seen.alone[answer.picture].text]
    if not thought or len(missing) < len(thought):
        return None
    # A model that was told not to think writes fewer tokens; one whose thoughts are thrown away writes them all.
    alike = [answer for answer in missing if _begins_alike(seen.alone[answer.picture].text, _answer_of(answer.text))]
    billed = [
        answer
        for answer in missing
        if (count := seen.alone[answer.picture].completion_tokens) and count == answer.completion_tokens
    ]
    if 2 * max(len(alike), len(billed)) < len(missing):
        return None
    names = [name for name in seen.fields if name not in ("content", "role")]
    where = f"; its message has {', '.join(names)} too" if names else ""
    return NamedDefect("reasoning_lost", f"none of {len(thought)} answers has what stands before {THINK_END}{where}")


def _begins_alike(text: str, answer: str) -> bool:
    return text.strip()[:12] == answer.strip()[:12] != ""


def _answer_of(text: str) -> str:
    return text.rpartition(THINK_END)[2].lstrip("\n")


def _without_reasoning(recording: Recording) -> Recording:
    from dataclasses import replace

    def bare(answer: RecordedAnswer) -> RecordedAnswer:
        cut = len(answer.text) - len(_answer_of(answer.text))
        kept = [number for number, end in enumerate(answer.ends) if end > cut]
        return replace(
            answer,
            text=answer.text[cut:],
            ends=tuple(answer.ends[number] - cut for number in kept),
            leads=tuple(answer.leads[number] for number in kept),
            logprobs=tuple(answer.logprobs[number] for number in kept),
        )

    return replace(recording, answers=tuple(map(bare, recording.answers)), simulated={})


def _changing(seen: Observation, recording: Recording) -> dict[str, list[str]]:
    """Hold the engine's later answers against its first ones: by defect, the pictures with others."""
    later = {"warm_differs": seen.warm.items(), "together_differs": seen.together, "stream_differs": seen.whole.items()}
    return {
        name: [picture for picture, reply in replies if _changed(picture, reply, seen, recording)]
        for name, replies in later.items()
    }


def _rounds(seen: Observation, changing: Mapping[str, Sequence[str]]) -> list[NamedDefect]:
    asked = {
        "warm_differs": f"asked again, {{}} of {len(seen.warm)}",
        "together_differs": f"{TOGETHER} at once, {{}} of {len(seen.together)}",
        "stream_differs": f"not streamed, {{}} of {len(seen.whole)}",
    }
    return [
        NamedDefect(name, f"{asked[name].format(len(apart))} answers are others: {', '.join(apart)}")
        for name, apart in changing.items()
        if apart
    ]


def _changed(picture: str, reply: Completion, seen: Observation, recording: Recording) -> bool:
    """Tell whether an answer parts from the engine's first one at a token that the reference was sure of."""
    first = seen.alone.get(picture)
    if first is None:
        return False
    place = first_difference(first.text, reply.text)
    if place is None or (place == len(reply.text) and reply.finish_reason == "length"):
        return False
    answer = next((one for one in recording.answers if one.picture == picture), None)
    if answer is None or not answer.leads or answer.text[:place] != first.text[:place]:
        return place < len(first.text) / 10  # nothing is known of how sure it was: only what is plain counts
    return (answer.lead_at(place) or 0.0) > SURE


def _stale(seen: Observation, recording: Recording, pictures: Sequence[Picture]) -> NamedDefect | None:
    """Look for pictures that are answered as their twins."""
    texts = {answer.picture: answer.text for answer in recording.answers}
    twins = [
        (picture.name, picture.recipe.twin)
        for picture in pictures
        if picture.recipe.twin and picture.name in seen.alone and picture.recipe.twin in seen.alone
    ]
    stale = [
        name
        for name, twin in twins
        if (place := first_difference(texts[name], texts[twin])) is not None
        and seen.alone[name].text[: place + 1] == texts[twin][: place + 1]
        and seen.alone[name].text == seen.alone[twin].text
    ]
    if not stale:
        return None
    return NamedDefect(
        "stale_prefix", f"{', '.join(stale)} answered as what was asked before, of the same size and phrase"
    )


def _of_boxes(comparisons: Sequence[AnswerComparison]) -> list[NamedDefect]:
    fits = fitting_map(comparisons)
    if fits is not None:
        return [NamedDefect(*fits)]
    components = common_components(comparisons)
    return [NamedDefect("displaced", "; ".join(map(str, components[:3])))] if components else []


def _simulated(seen: Observation, recording: Recording, comparisons: Sequence[AnswerComparison]) -> NamedDefect | None:
    """Look for the defect that answers side with, of those that were simulated."""
    best, score = None, 0.0
    for name in recording.simulated:
        sides, against = _sides(name, seen, recording, comparisons)
        if sides >= _FITS and sides >= _SHARE * (sides + against) and sides / (1 + against) > score:
            best, score = name, sides / (1 + against)
    if best is None:
        return None
    return NamedDefect(NAMES.get(best, best), "answers go the way that this checkpoint goes with that defect")


def _of_texts(seen: Observation, recording: Recording, comparisons: Sequence[AnswerComparison]) -> NamedDefect:
    """Name a defect that shows neither in prompts nor in the places of boxes."""
    controls = [
        lead
        for answer in recording.controls
        if (reply := seen.controls.get(answer.picture)) is not None
        and (lead := parting(reply.text, answer, cut=reply.finish_reason == "length")[1]) is not None
    ]
    sure = [one for one in comparisons if one.sure]
    seen_here = f"{len(sure)} of {len(comparisons)} texts part where the reference is sure"
    early = _early(comparisons, recording)
    if controls and len(early) > _SHARE * len(comparisons):
        return NamedDefect("other_weights", f"{len(early)} of {len(comparisons)} texts are others from the beginning")
    if max(controls, default=0.0) <= UNSURE and sum(one.place is None for one in comparisons) > DISAGREE * len(
        comparisons
    ):
        apart = ", ".join(f"{one.picture} ({one.size[0]} x {one.size[1]})" for one in sure)
        return NamedDefect("some_pictures", f"{seen_here}, and most not at all: {apart}")
    if not seen.controls:
        return NamedDefect("unknown", seen_here)
    if controls and sum(one.agrees for one in comparisons) >= 0.3 * len(comparisons):
        return NamedDefect("quantised", f"{seen_here}, and without a picture too")
    return NamedDefect("unknown" if controls else "vision", seen_here)


def _early(comparisons: Sequence[AnswerComparison], recording: Recording) -> list[AnswerComparison]:
    """Answers that part from the reference's within its first tenth."""
    lengths = {answer.picture: len(answer.text) for answer in recording.answers}
    return [one for one in comparisons if one.place is not None and one.place < 0.1 * lengths[one.picture]]


def _sides(
    name: str, seen: Observation, recording: Recording, comparisons: Sequence[AnswerComparison]
) -> tuple[float, float]:
    """Add up the nats of answers that go the way of a simulated defect, and of those that do not."""
    sides = against = 0.0
    for one in comparisons:
        expected = recording.simulated[name].get(one.picture)
        lead = one.lead or 0.0
        if expected is None:
            against += lead
        elif one.place == expected.place:
            text = seen.alone[one.picture].text[one.place :]
            alike = min(len(text), len(expected.text))
            if text[:1] == expected.text[:1] and alike:
                sides += lead
            else:
                against += lead
        elif one.place is None or one.place > expected.place:
            against += expected.lead
        else:
            against += lead
    return sides, against


def _notes(seen: Observation, recording: Recording, comparisons: Sequence[AnswerComparison]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for what, why in seen.failed.items():
        reasons.setdefault(why, []).append(what)
    notes = []
    for why, whats in reasons.items():
        more = f" and {len(whats) - _NAMED} more" if len(whats) > _NAMED else ""
        notes.append(f"no answer to {', '.join(whats[:_NAMED])}{more}: {why}")
    if comparisons and all(one.prompt_tokens is None for one in comparisons):
        notes.append("the engine does not count the tokens of its prompts, which are not compared")
    for name, reply in seen.files.items():
        answer = next((one for one in recording.answers if one.picture == name), None)
        place, lead = (
            (None, None) if answer is None else parting(reply.text, answer, cut=reply.finish_reason == "length")
        )
        if place is not None and (lead is None or lead > SURE):
            notes.append(
                f"the file {name!r} is read otherwise than the picture in it: the engine passes over EXIF or colour "
                "modes, so send upright RGB, as EGM does"
            )
    moved = [abs(one.logprob) for one in comparisons if one.logprob is not None]
    if moved:
        notes.append(
            f"log-probabilities of the same texts differ by {median(moved):.4f} a token, {max(moved):.4f} at most"
        )
    others = [name for name in seen.fields if name not in ("content", "role", "reasoning", "reasoning_content")]
    if others:
        notes.append(f"the engine's message has text in {', '.join(others)}, which clients do not read")
    return notes
