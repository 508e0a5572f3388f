"""What several filters need: sentences, a phrase's own words, and the few words that a verdict quotes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_SENTENCE: Final = re.compile(r"[^.!?;\n。！？；]+(?:[.](?=\d)[^.!?;\n。！？；]*)*")
_SPACES: Final = re.compile(r"[^\S\n]+")
_NEWLINES: Final = re.compile(r"\n\s*")
_WORD: Final = re.compile(r"\w+")
_PLAIN_WORDS: Final = "a an the this that which in inside within on of by with is was at it to"
_PLAIN: Final = frozenset(_PLAIN_WORDS.split())
_QUOTED = 60  # characters of a quotation


def flat(text: str) -> str:
    """Make one space of several, so that no pattern has to go through them again and again; lines stay apart."""
    return _NEWLINES.sub("\n", _SPACES.sub(" ", text))


def sentences(text: str) -> list[str]:
    """Split a text at full stops, semicolons and line ends, but not inside a decimal number."""
    return [found[0].strip() for found in _SENTENCE.finditer(text) if found[0].strip()]


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


def mentions(lowered: str, stems: tuple[str, ...]) -> bool:
    """Tell whether a text in lower case holds one of some strings: cheaper than a pattern that needs one of them."""
    return any(stem in lowered for stem in stems)


def excerpt(text: str, found: re.Match[str] | None = None) -> str:
    """Quote what was found in a text, on one line and not at length."""
    quoted = " ".join((text if found is None else found[0]).split())
    return quoted if len(quoted) <= _QUOTED else f"{quoted[: _QUOTED - 3]}..."


def outside_phrase(text: str, phrase: str, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """Yield where a pattern is found with a word of its own: one that is in the phrase too is no news.

    Args:
        text: The rationale.
        phrase: What was asked.
        pattern: With the words that give something away in its group `told`.
    """
    asked = {_stem(word) for word in words(phrase)} | _PLAIN
    for found in pattern.finditer(text):
        if not all(_stem(word) in asked for word in words(found["told"])):
            yield found


def _stem(word: str) -> str:
    """Take the commonest endings off, so that "boxes" and "box" are one."""
    for ending in ("es", "s", "ed"):
        if len(word) > len(ending) + 2 and word.endswith(ending):
            return word.removesuffix(ending)
    return word
