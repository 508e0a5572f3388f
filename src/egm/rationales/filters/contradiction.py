"""Contradictions: a conclusion that the true box, or the phrase, says is wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final

from egm.boxes import Box, iou
from egm.errors import RecipeError
from egm.rationales.candidate import Candidate
from egm.rationales.filters.base import Filter, register_filter
from egm.rationales.filters.conclusion import said_of_it
from egm.rationales.filters.places import wrong_place
from egm.rationales.filters.words import excerpt, flat, mentions
from egm.types import HIT_IOU

_SEEN: Final = r"(?:visible|present|found|seen|there|shown|depicted|detected|located|identified|spotted|anywhere|here)"
_IMAGE: Final = r"(?:image|picture|photo(?:graph)?|scene|frame|view)"
_KIND: Final = r"(?:object|thing|item|one|shape|person|match|region|candidate|figure|element)s?"
_NONE: Final = re.compile(
    rf"""\b(?:
        (?:there\s+(?:is|are|was|were|seems?\s+to\s+be|appears?\s+to\s+be)|there['’]s|contains?|shows?|see|has)\s+
          (?:no|not\s+an?y?|nothing)\s+(?:such|matching|suitable|corresponding|fitting|{_KIND}\s+(?:of\s+(?:that|this
          |the)
          |like\s+(?:this|that)|that\s+(?:fits?|match)|fitting|matching|with\s+(?:this|that|these)\s+descr))
      | there\s+(?:isn|aren)['’]t\s+any(?:thing|one)?\b(?!\s+(?:other|else))
      | no\s+such\s+\w+ | no\s+match(?:es|ing)?\b
      | no\s+{_KIND}\s+(?:\w+\s+){{0,6}}?(?:match(?:es)?|fits?|corresponds?|meets?|satisf(?:y|ies)|answers?|agrees?)\b
      | none\s+of\s+(?:the|these|them|those)(?!\s+others?\b)(?:\s+\w+){{0,5}}?\s+(?:fits?|match(?:es)?|meets?
          |corresponds?
        |is|are|has|have|satisf|qualif|can\s+be)
      | none\s+(?:fits?|match(?:es)?|is\s+{_SEEN})\b | (?:answer|result|choice|target)\s+is\s+(?:none|nothing|empty)\b
      | nothing\s+(?!else|other)(?:\w+\s+){{0,6}}?(?:match(?:es)?|fits?|corresponds?|meets|agrees|like\s+(?:it|that
          |this))\b
      | (?:it|object|target|{_KIND}|described\s+\w+)\s+(?:is|are)\s*(?:not|n['’]t)\s+(?:\w+ly\s+)?(?:in\s+(?:the|this)
        \s+{_IMAGE}|{_SEEN})\b
      | (?:it|object|target|such\s+an?\s+\w+|such\s+\w+|{_IMAGE}|there|I|we)\s+(?:does|do|did|can|could)(?:\s*not
          |n['’]t)\s+
        (?:appear|exist|contain|include|show|depict|see|find|locate|have\s+(?:any|such)|be\s+(?:seen|found|located))\b
      | (?:absent|missing)\s+from\s+(?:the|this)\s+{_IMAGE}
      | {_IMAGE}\s+(?:lacks|is\s+without|has\s+no\s+(?:such|{_KIND}))\b
      | (?:phrase|description|words|expression)\s+(?:does|do)(?:\s+not|n['’]t)\s+(?:\w+\s+)?(?:describe|match|fit
          |correspond
        |refer|apply|name)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_DENIALS: Final = ("no", "n't", "n’t", "lacks", "without", "absent", "missing")
"""One of these stands in all that `_NONE` finds."""
_NUMBER: Final = r"(-?\d{1,5}(?:\.\d{1,4})?)"
_BETWEEN: Final = r"\s?(?:,|;|\s|to|-(?!\d)|–|—|/|and|through|until){1,3}\s?"
# A bracket that opens where none has closed begins a box, and the number before it, as in "3 (10,20,30,40)", is a name.
_GAP: Final = rf"(?:\s?[\])]{_BETWEEN}[\[(]?|{_BETWEEN})\s?(?:[a-z]{{1,6}}_?\d?\s?[=:]\s?)?"
_TUPLE: Final = re.compile(rf"(?<![\w.]){_NUMBER}{_GAP}{_NUMBER}{_GAP}{_NUMBER}{_GAP}{_NUMBER}(?![\d.]*\d)")
_ORDINALS: Final = {
    "first": 1,
    "second": 2,
    "third": 3,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "1st": 1,
    "2nd": 2,
    "3rd": 3,
    "4th": 4,
    "5th": 5,
    "6th": 6,
    "7th": 7,
}
_ORDINAL: Final = re.compile(rf"\b({'|'.join(_ORDINALS)}|number\s+(\d))\b", re.IGNORECASE)
_SIDE_FROM: Final = re.compile(
    r"\b(?:from|starting\s+(?:at|on)|beginning\s+(?:at|on|with))\s+(?:the\s+|its\s+)?(?:far\s+)?(left|right|top"
    r"|bottom)\b",
    re.IGNORECASE,
)
_LARGE: Final = re.compile(r"\b(?:largest|biggest|tallest|widest|longest|greatest|bulkiest)\b", re.IGNORECASE)
_SMALL: Final = re.compile(r"\b(?:smallest|tiniest|shortest|littlest|narrowest|least\s+large)\b", re.IGNORECASE)
_FILLS: Final = re.compile(
    rf"""\b(?:fill(?:s|ing)?|tak(?:es?|ing)\s+up|cover(?:s|ing)?|occup(?:y|ies|ying)|span(?:s|ning)?|makes?\s+up
          |dominates?
      |stretch(?:es)?\s+(?:over|across)|extends?\s+(?:over|across)|accounts?\s+for|constitutes?)\s+(?:[\w-]+\s+){{0,4}}?
    (?:most|all|almost|nearly|whole|entire|half|bulk|majority|quarters?|thirds|percent|entirety
      |(?:greater|larger|largest|greatest|better|major|main|biggest)\s+(?:part|share|portion))\b
    (?:\s+\w+){{0,3}}?\s+(?:{_IMAGE}|area|space)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_TINY: Final = re.compile(
    rf"\b(?:tiny|small|minute)\s+(?:\w+\s+)?(?:part|speck|spot|dot|portion)\b.{{0,20}}\b{_IMAGE}\b", re.I
)


@register_filter
@dataclass(frozen=True)
class Contradiction(Filter):
    """Drops a rationale whose conclusion cannot be of the true box.

    Held against the box: a box in the conclusion (by IoU), a side of the picture, and how much of the picture it fills.
    Held against the phrase: an ordinal counted from the same side, and "largest" or "smallest". That there is no such
    thing contradicts any box. A side that the phrase names too may be meant among others ("the left man", with both men
    on the right), and has to be said of the picture itself to count.

    Attributes:
        margin: How far beyond the middle of the picture, as a share of its side, the centre of the box may lie on the
            other side than the one that is said.
    """

    name: ClassVar[str] = "contradiction"
    reason: ClassVar[str] = "its conclusion contradicts the true box, or the phrase"
    margin: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 0.5:
            raise RecipeError(f"margin is {self.margin}: give a share of the picture's side from 0 up to 0.5")

    def check(self, candidate: Candidate) -> str | None:
        """Hold what is said of the object against box and phrase; see `Filter.check`."""
        text, phrase = flat(candidate.text), candidate.sample.phrase
        denies = mentions(text.lower(), _DENIALS)
        if denies and (found := _NONE.search(text)) is not None and not _NONE.search(phrase):
            return f"it says that there is none: {excerpt(text, found)!r}"
        if (why := _wrong_box(text, candidate)) is not None:
            return why
        for said in said_of_it(text, phrase):
            why = (
                wrong_place(said, candidate, self.margin)
                or _wrong_ordinal(said.sentence, phrase)
                or _wrong_size(said.piece, phrase)
                or _wrong_extent(said.sentence, candidate)
            )
            if why is not None:
                return why
        return None


def _wrong_box(text: str, candidate: Candidate) -> str | None:
    """Hold the last box that is said against the true one, as the codec's numbers and as pixels."""
    width, height = candidate.size
    across, down = candidate.span
    last = None
    for found in _TUPLE.finditer(text):
        x1, y1, x2, y2 = (float(number) for number in found.groups())
        if x1 < x2 and y1 < y2:  # the hours of a clock are no box
            last = found, Box(x1, y1, x2, y2)
    if last is None:
        return None
    found, box = last
    scaled = Box(box.x1 * width / across, box.y1 * height / down, box.x2 * width / across, box.y2 * height / down)
    if max(iou(scaled, candidate.box), iou(box, candidate.box)) >= HIT_IOU:
        return None
    return f"its box is another one: {excerpt(text, found)!r}"


def _wrong_ordinal(piece: str, phrase: str) -> str | None:
    sides = {side.lower() for side in _SIDE_FROM.findall(phrase)}
    asked = set(_ordinals(phrase))
    if not sides or not asked:
        return None
    said = set(_ordinals(piece))
    from_sides = {side.lower() for side in _SIDE_FROM.findall(piece)}
    if said and from_sides & sides and not said & asked:
        return f"it counts otherwise than the phrase: {excerpt(piece)!r}"
    return None


def _ordinals(text: str) -> list[int]:
    return [int(digit) if digit else _ORDINALS[word.lower()] for word, digit in _ORDINAL.findall(text)]


def _wrong_size(piece: str, phrase: str) -> str | None:
    for asked, opposite in ((_LARGE, _SMALL), (_SMALL, _LARGE)):
        if not asked.search(phrase) or opposite.search(phrase) or asked.search(piece):
            continue
        if (found := opposite.search(piece)) is not None:
            return f"its size is the opposite of the phrase's: {excerpt(piece, found)!r}"
    return None


def _wrong_extent(sentence: str, candidate: Candidate) -> str | None:
    width, height = candidate.size
    seen = candidate.box.clip(candidate.size)
    share = 0.0 if seen is None else seen.area / (width * height)
    if share < 0.25 and (found := _FILLS.search(sentence)) is not None:
        return f"the box is {share:.0%} of the picture: {excerpt(sentence, found)!r}"
    if share > 0.5 and (found := _TINY.search(sentence)) is not None:
        return f"the box is {share:.0%} of the picture: {excerpt(sentence, found)!r}"
    return None
