"""What a rationale says of its own object: its conclusion, apart from what it says of the others."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from egm.rationales.filters.words import sentences, words

_IT: Final = r"(?:it|this|that|he|she|they)"
_MARKER: Final = re.compile(
    rf"""\b(?:
        (?:so|therefore|thus|hence|consequently|accordingly)\b
      | (?:the\s+)?(?:answer|target|choice|match|referent|solution)\s+(?:\w+\s+){{0,3}}?(?:is|must\s+be|lies
          |would\s+be)\b
      | {_IT}\s+(?:is|['’]s|must\s+be|can\s+be|sits|lies|stands|appears|has\s+to\s+be|would\s+be|comes|takes)\b
      | which\s+is\s+(?=the\b)
      | (?:{_IT}|which)\s+(?:leaves|makes|gives|places|puts|means)\b
      | (?:the\s+)?(?:description|phrase|words?|expression|sentence|text)\s+(?:\w+\s+)?(?:refers?|points?|means?
          |describes?
        |fits?|match(?:es)?|names?|indicates?|corresponds?)\b
      | (?:the\s+)?(?:one|object|person|man|woman|thing|item)\s+(?:that\s+is\s+|which\s+is\s+|being\s+)?(?:meant
          |described
        |referred|asked|wanted|in\s+question|sought|chosen|looked\s+for)\b
      | (?:the\s+)?(?:described|correct|chosen|matching|intended|target|selected|final|right)\s+(?:one|object|answer
          |choice
        |person|man|woman|item|thing|shape|figure|box|region|area)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_GENERAL: Final = re.compile(
    r"\W*(?:[\w,]+\s+){0,6}?(?:it|this|that|he|she|they|one|object|target|match|subject|person|thing|item|answer"
    r"|which)\b",
    re.IGNORECASE,
)
_OTHERS: Final = re.compile(
    r"\W*(?:(?:the|an?|all|both|most|some|any|each|every)\s+)?(?:other|others|another|rest|remaining|unlike|while"
    r"|whereas"
    r"|besides|except|no|not|none|nothing|nobody)\b",
    re.IGNORECASE,
)
_DENIED: Final = re.compile(r"\b(?:is|are|was|were|does|do|has|have|can|could)(?:\s+not|n['’]t)\b", re.IGNORECASE)
_TURN: Final = re.compile(
    r"""\b(?:while|whereas|unlike|although|though|but|than|rather|instead|not|other|others|another|except|after|before
      |until|against|nearest|farthest|furthest|closest|nearer|farther|closer|next\s+to|beside|besides|behind|in\s+front\s+of
      |above|below|under|underneath|beneath|over|between|among|amid|with\s+(?:the|an?)|(?:to\s+)?(?:the\s+)?(?:left
          |right)
      \s+of(?!\s+(?:the\s+)?(?:image|picture|photo(?:graph)?|scene|frame|view|shot))|facing|toward|towards|opposite
          |away|next
      |holding|looking|relative|compared|adjacent|near(?!\s+(?:the|its?)\s+(?:\w+\s+){0,2}?(?:edge|border|corner|left
          |right|top
      |bottom|cent(?:er|re)|middle)))\b""",
    re.IGNORECASE | re.VERBOSE,
)
_SMALL_WORDS: Final = (
    "the a an of in on at to and or is are was with from by for that which who it its his her their this there one left"
    " right top bottom middle center centre upper lower front back side far near most not"
)
_SMALL: Final = frozenset(_SMALL_WORDS.split())


class Said(NamedTuple):
    """What a rationale says of the object that it explains.

    Attributes:
        piece: The words, up to where they turn to another object.
        sentence: The sentence that they are in.
        concluded: Whether a marker such as "so it is" says that they are of this object.
    """

    piece: str
    sentence: str
    concluded: bool


def said_of_it(text: str, phrase: str) -> list[Said]:
    """Find the pieces of a rationale that speak of the object that it explains.

    A piece begins at the last marker of a sentence; else it is a sentence whose first words name the object as the
    phrase does, or a last sentence that begins with "it", "the one" and the like. What begins with "the other" or is
    denied is about others.
    """
    names = {word for word in words(phrase) if word not in _SMALL}
    every = sentences(text)
    pieces = (_about(sentence, names, last=number == len(every) - 1) for number, sentence in enumerate(every))
    return [said for said in pieces if said is not None]


def _about(sentence: str, names: set[str], *, last: bool) -> Said | None:
    if _OTHERS.match(sentence):
        return None
    markers = list(_MARKER.finditer(sentence))
    if markers:
        start, end = markers[-1].span()
        return Said(_until_turn(sentence[start:], skip=end - start), sentence, concluded=True)
    if _DENIED.search(sentence):
        return None
    piece = _until_turn(sentence, skip=0)
    if names & set(words(piece)) or (last and _GENERAL.match(sentence)):
        return Said(piece, sentence, concluded=False)
    return None


def _until_turn(piece: str, *, skip: int) -> str:
    turn = _TURN.search(piece, skip)
    return piece if turn is None else piece[: turn.start()]
