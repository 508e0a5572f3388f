"""Why a box missed, by rule, how complex its phrase was, and what a run of failures usually means.

*Misses.* A miss has an IoU below 0.5. The first rule that fits names it:

1. `no_box`: the answer holds no box; the reason stands beside it.
2. `mirrored`: the phrase names a side (left or right), and the box has an IoU of at least 0.5 with the truth mirrored
   left to right.
3. `wrong_same_kind`, `wrong_object`: the box has an IoU of at least 0.5 with another annotated object of the picture
   (one whose IoU with the truth is below 0.9). It is of the same kind where both categories are known and equal; of an
   unknown or another kind otherwise. RefCOCO's pictures were chosen for holding several objects of one kind, but not
   every pair in them is.
4. `part`: at least 90 % of the box lies in the true box and the IoU is below 0.4, so that the box has less than about
   half of the true area. `whole`: the same with the two exchanged.
5. `loose`: an IoU of at least 0.2: the right object, badly outlined.
6. `other`.

*None and many.* Where nothing matches, boxes are a `false_alarm`; where something does, the answer that nothing does is
a `false_rejection`. Of several boxes, paired off at IoU 0.5, all true ones are found and others besides (`extra`), all
answered ones are true and others are missing (`missing`), or neither (`mixed`). One box against one goes by the rules
above.

Rules 2 and 3 can only find what is known: without the size of the picture nothing is mirrored, and an object that
nobody annotated counts as `other`.

*Phrases.* `phrase_facts` counts, from left to right and without counting a word twice: relations (where something is,
to another thing or in the frame: "left", "next to", "holding", and so on; adjoining words of place such as "top right
corner" are one), ordinals ("second", "last", "3rd"), superlatives ("tallest", "most", "leftmost") and negation ("not",
"without", "except"). A phrase is *complex* with two or more of these together. "in", "with", "of" and "wearing" are not
counted: mostly they bind attributes ("man in red with hat"), and no list of words can tell.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final, NamedTuple

import numpy as np

from egm.assignment import match_boxes
from egm.boxes import Box, iou, iou_array, pairwise_iou
from egm.codecs.fitting import fit_answers
from egm.codecs.parsing.reading import MAX_BOXES
from egm.codecs.registry import codec_without_thinking, says_none
from egm.journal import ERROR, Record
from egm.terminal import printable
from egm.types import HIT_IOU, Failure

COMPLEX_AT = 2
"""A phrase with this many relations, ordinals, superlatives and negations together is complex."""

_MOST_FITTED = 1000  # malformed answers that are held against every convention
_SAME_OBJECT = 0.9
_NESTED = 0.9
_NESTED_BELOW = 0.4
_LOOSE_FROM = 0.2

_PLACE = (
    r"(?:(?:left|right|top|bottom|upper|lower|middle|center|centre|central|mid|front|back|rear|corner|foreground"
    r"|background|far|lft|rt|bttm|btm)\b)"
)
_JOIN = r"(?:[\s-]+(?:(?:and|hand|most|side|part|half|end|edge)\s+)?)"
_RELATION = rf"""
    in\s+(?:the\s+)?front\s+of | (?:on\s+|at\s+)?(?:the\s+)?(?:back|rear|top|bottom|side|edge)\s+of
    | right\s+(?:behind|beside|above|below|under)
    | (?:(?:on|at|in|to|from)\s+)?(?:the\s+)?{_PLACE}(?:{_JOIN}{_PLACE})*+
    | next\s+to | close\s+to | far\s+from | away\s+from
    | (?:behind|beside|besides|between|among|amongst|near|nearby|by|above|below|beneath|underneath|under|over|across
    |against|along|alongside|around|inside|outside|within|onto|through|toward|towards|facing|following|opposite
    |adjacent)(?:\s+(?:to|of|from))?+
    | (?:holding|carrying|touching|riding|pushing|pulling|hugging|feeding|watching|chasing|surrounding|covering
    |blocking|leading)
    | (?:looking|pointing|staring|smiling|reaching|leaning|sitting|standing|lying|laying|resting|hanging|walking
    |attached|connected|talking)\s+(?:at|on|to|against|with|from|for|behind|over|toward|towards|next\s+to)
    | on
"""
_SUPERLATIVE = r"""
    (?!(?:arrest|artist|best\s+man|breast|chest|conquest|contest|crest|digest|dest|east|feast|fest|forest|guest|harvest
    |headrest|honest|interest|invest|least|modest|nest|northwest|pest|priest|protest|quest|request|rest|southwest|suggest|test
    |vest|west|wrest|almost|mostly|most|post|host|signpost|lamppost|outpost|utmost)s?\b)
    (?:\w{2,}?est|\w{3,}?most)(?:\s+(?:to|from))? | most | least
"""
_ORDINAL = (
    r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last|penultimate|\d+(?:st|nd|rd|th))"
    r"(?:\s+(?:one\s+)?from)?"
)
_NEGATION = r"not | no | none | never | nothing | nobody | without | except | excluding | other\s+than | \w+n['’]t"
_WORDS = re.compile(
    rf"""\b(?: (?P<negation>{_NEGATION}) | (?P<ordinal>{_ORDINAL}) | (?P<superlative>{_SUPERLATIVE})
    | (?P<relation>{_RELATION}) )(?!\w)""",
    re.IGNORECASE | re.VERBOSE,
)
_SIDE = re.compile(r"\b(?:left|right|lft|rt)(?:most|hand|side)?\b", re.IGNORECASE)


class Miss(StrEnum):
    """What kind of miss; the module says by which rules."""

    NO_BOX = "no_box"
    MIRRORED = "mirrored"
    WRONG_SAME_KIND = "wrong_same_kind"
    WRONG_OBJECT = "wrong_object"
    PART = "part"
    WHOLE = "whole"
    LOOSE = "loose"
    OTHER = "other"
    FALSE_ALARM = "false_alarm"
    FALSE_REJECTION = "false_rejection"
    EXTRA = "extra"
    MISSING = "missing"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True)
class PhraseFacts:
    """What makes a phrase complex.

    Attributes:
        words: How many words.
        relations: Words of place and relation.
        ordinals: Such as "second".
        superlatives: Such as "tallest".
        negations: Such as "not".
    """

    words: int
    relations: int
    ordinals: int
    superlatives: int
    negations: int

    @property
    def count(self) -> int:
        """All of them together."""
        return self.relations + self.ordinals + self.superlatives + self.negations

    @property
    def is_complex(self) -> bool:
        """Whether there are `COMPLEX_AT` or more."""
        return self.count >= COMPLEX_AT


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another annotated object of the picture, with its category where known."""

    box: Box
    category: str | None = None


def phrase_facts(phrase: str) -> PhraseFacts:
    """Count what makes a phrase complex; the module states the grammar.

    Example:
        >>> phrase_facts("second man from the left not wearing a hat")
        PhraseFacts(words=9, relations=1, ordinals=1, superlatives=0, negations=1)
    """
    counts = {"relation": 0, "ordinal": 0, "superlative": 0, "negation": 0}
    for match in _WORDS.finditer(phrase):
        counts[str(match.lastgroup)] += 1
    return PhraseFacts(
        words=len(phrase.split()),
        relations=counts["relation"],
        ordinals=counts["ordinal"],
        superlatives=counts["superlative"],
        negations=counts["negation"],
    )


def classify_miss(
    box: Box | None,
    truth: Box | None,
    *,
    phrase: str = "",
    size: tuple[int, int] | None = None,
    category: str | None = None,
    others: Sequence[Neighbour] = (),
) -> Miss | None:
    """Name a miss, or return None for a hit (an IoU of 0.5 or more).

    Args:
        box: What was answered, in pixels, or None.
        truth: What was meant, in pixels; None only where there is no box either.
        phrase: What was asked.
        size: Width and height of the picture in pixels, if known.
        category: What kind of object was meant, if known.
        others: Annotated objects of the same picture; the true one may be among them.
    """
    if box is None or truth is None:
        return Miss.NO_BOX
    overlap = iou(box, truth)
    if overlap >= HIT_IOU:
        return None
    if size is not None and _SIDE.search(phrase) and iou(box, truth.mirrored(size[0])) >= HIT_IOU:
        return Miss.MIRRORED
    wrong = _other_object(box, truth, others)
    if wrong is not None:
        same = category is not None and wrong.category == category
        return Miss.WRONG_SAME_KIND if same else Miss.WRONG_OBJECT
    if overlap < _NESTED_BELOW:
        shared = overlap / (1 + overlap) * (box.area + truth.area)  # of IoU = I / (A + B - I)
        if shared >= _NESTED * box.area:
            return Miss.PART
        if shared >= _NESTED * truth.area:
            return Miss.WHOLE
    return Miss.LOOSE if overlap >= _LOOSE_FROM else Miss.OTHER


def classify_set_miss(answered: Sequence[Box], true: Sequence[Box]) -> Miss:
    """Name a miss of an answer with any number of boxes, which are not one against one; the module says the rules.

    Args:
        answered: The boxes; none says that nothing matches.
        true: The true boxes; none if nothing matches.
    """
    if not true:
        return Miss.FALSE_ALARM
    if not answered:
        return Miss.FALSE_REJECTION
    ious = pairwise_iou([box.corners for box in answered], [box.corners for box in true])
    matched = len(match_boxes(ious, HIT_IOU))
    return Miss.EXTRA if matched == len(true) else Miss.MISSING if matched == len(answered) else Miss.MIXED


def _other_object(box: Box, truth: Box, others: Sequence[Neighbour]) -> Neighbour | None:
    """The other object that the box fits best, with an IoU of at least 0.5."""
    if not others:
        return None
    fits = pairwise_iou([tuple(box), tuple(truth)], [tuple(other.box) for other in others])
    fit = np.where(fits[1] < _SAME_OBJECT, fits[0], 0.0)
    best = int(fit.argmax())
    return others[best] if fit[best] >= HIT_IOU else None


_USUALLY: Final[Mapping[str, str]] = {
    "no_box": "the model answers in words, never ends its reasoning, or is of another family than the codec (--codec)",
    "truncated": "the token limit cut them off, which can be raised (--max-tokens; rollout.max_new_tokens in a recipe)",
    "repeated": "the model is outside of what it was trained on, and says the same again and again",
    "malformed": "other than four numbers stand where a box should, such as points: the model may be of another family "
    "than the codec (--codec)",
    "refused": "the model sees no such thing: look whether phrases and pictures belong together, and whether the "
    "prompt is the model's own (--prompt)",
    "out_of_range": "coordinates are on another scale than the codec's, such as pixels in place of 0-1000 (--codec)",
    "degenerate": "numbers are in another order than x1, y1, x2, y2, such as x, y, width, height",
}
_CUT_OFF = ("length", "repeated")
_EXAMPLE = 160  # characters of an example, of its end: there the answer stands


class Answered(NamedTuple):
    """What a sample was answered, as far as notes are made of it.

    Attributes:
        name: The sample's id.
        text: What the model wrote.
        failure: Why there is no box, or None.
    """

    name: str
    text: str
    failure: str | None


def usual_cause(answers: Sequence[Answered], what: str = "answers") -> tuple[str, str] | None:
    """Say what it usually means that one kind of failure is more than half of some answers.

    Args:
        answers: All of a run or a step, without errors of the engine.
        what: What to call them.

    Returns:
        The kind, and one line with an example; None where no kind is that frequent.
    """
    kinds = Counter(answer.failure for answer in answers if answer.failure is not None)
    for kind, count in kinds.most_common(1):
        if 2 * count > len(answers):
            example = next(answer for answer in answers if answer.failure == kind)
            return kind, (
                f"{count:,} of {len(answers):,} {what} are {kind}, which usually means: {_USUALLY[kind]}; such as "
                f"{printable(example.name)}: {_shortened(example.text)}"
            )
    return None


def run_notes(records: Iterable[Record], codec: str | None) -> list[str]:
    """Say what is odd about a run's answers: none ends its reasoning, most fail alike, boxes are cut off, or by scale.

    Args:
        records: The run's, errors of the engine included.
        codec: Name of the codec that read the texts, if there was one.

    Returns:
        One line each.
    """
    kept = [record for record in records if record.failure != ERROR]
    answers = [Answered(record.id, record.text, record.failure) for record in kept]
    notes = []
    ended = [record.text for record in kept if record.text.strip() and record.finish_reason not in _CUT_OFF]
    instead = None if codec is None else codec_without_thinking(codec)
    # Where most were cut off, that is why they lack it.
    if instead is not None and 2 * len(ended) > len(kept) and not any("</think>" in text for text in ended):
        notes.append(
            f"none of the {len(ended):,} answers holds the </think> that codec {codec} expects: if the model does not "
            f"think first, --codec {instead} asks and reads it; if it does, the server hides its reasoning"
        )
    if codec is not None and not says_none(codec) and any(record.expect != "one" for record in kept):
        notes.append(f"codec {codec} has no answer for 'nothing matches': where all boxes were asked for, words say it")
    if long := [record for record in kept if len(record.answered) >= MAX_BOXES]:
        notes.append(
            f"{len(long):,} of {len(kept):,} answers give {MAX_BOXES:,} boxes or more ({printable(long[0].id)}): no "
            f"more than the first {MAX_BOXES:,} count"
        )
    cause = usual_cause(answers)
    others = (cause[1] if cause else None, _mixed_note(kept, codec), _scale_note(kept))
    return [*notes, *(note for note in others if note is not None)]


def _mixed_note(records: Sequence[Record], codec: str | None) -> str | None:
    """Say that some answers hold boxes in the form of another convention, by that form alone; none is read by it."""
    found = [(record.text, record.size) for record in records if codec and record.failure == Failure.MALFORMED]
    fitting = fit_answers([(text, size) for text, size in islice(found, _MOST_FITTED) if size is not None])
    theirs = [fit for fit in fitting.fits if fit.own]
    if not theirs:
        return None
    return (
        f"{theirs[0].own:,} of {len(records):,} answers hold a box as codec {theirs[0].codec} writes it, and none to "
        f"codec {codec}: `egm score --codec ask` counts the conventions that a file mixes"
    )


def _scale_note(records: Sequence[Record]) -> str | None:
    """Say that boxes look as if they, or the true ones, were not in pixels; told, and never acted on."""
    known = [(record, record.truth) for record in records if record.truth is not None]
    records = [record for record, _ in known]
    boxed = [(record, record.box) for record in records if record.box is not None]
    if small := [record for record, truth in known if max(truth) <= 1]:
        return (
            f"{len(small):,} of {len(records):,} true boxes lie within 0 to 1 ({printable(small[0].id)}): they look "
            "like shares of the picture's sides, and are read as pixels"
        )
    if 2 * sum(max(box) <= 1 for _, box in boxed) > len(boxed):
        return _other_scale(boxed[0][0], "most boxes lie within 0 to 1: they look like shares of the picture's sides")
    sized = [
        (record, truth, record.box, record.size)
        for record, truth in known
        if record.box is not None and record.size is not None
    ]
    if sized:
        scaled = [
            (x1 * w / 1000, y1 * h / 1000, x2 * w / 1000, y2 * h / 1000) for *_, (x1, y1, x2, y2), (w, h) in sized
        ]
        fit = int((iou_array(scaled, [truth for _, truth, *_ in sized]) >= HIT_IOU).sum())
        hits = sum(record.iou_hit() for record, *_ in sized)
        if 2 * fit > len(sized) and 2 * hits < fit:
            what = f"{hits:,} of {len(sized):,} boxes are hits, and {fit:,} would be if they were on the 0-1000 scale"
            return _other_scale(sized[0][0], what)
    return None


def _other_scale(record: Record, what: str) -> str:
    return (
        f"{what}, such as {printable(record.id)}: boxes of rows must be in pixels of the original picture, and those "
        "of texts are read on the scale of their codec (--codec)"
    )


def _shortened(text: str) -> str:
    shown = printable(text[-8 * _EXAMPLE :])
    cut = len(shown) > _EXAMPLE or len(text) > 8 * _EXAMPLE
    return repr(("…" if cut else "") + shown[-_EXAMPLE:]) if shown else "an empty text"
