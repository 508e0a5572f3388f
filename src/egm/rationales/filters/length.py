"""Rationales of too few words to say why, or of too many to be trained on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final

from egm.errors import RecipeError
from egm.rationales.candidate import Candidate
from egm.rationales.filters.base import Filter, register_filter

_UNSPACED: Final = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0e7f]")
_LETTERS_A_WORD = 2  # of scripts that set no spaces between words


@register_filter
@dataclass(frozen=True)
class Length(Filter):
    """Drops what is shorter or longer than a style asks for.

    Words are what stands between spaces, so a box without spaces in it is one; two Chinese or Japanese characters are
    one word.

    Attributes:
        least: Fewest words.
        most: Most words.
    """

    name: ClassVar[str] = "length"
    reason: ClassVar[str] = "it is too short or too long"
    least: int = 5
    most: int = 120

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise RecipeError(f"least is {self.least} and most {self.most}: give two numbers of words in order")

    def check(self, candidate: Candidate) -> str | None:
        """Count the words; see `Filter.check`."""
        spaced, unspaced = _UNSPACED.subn(" ", candidate.text)
        count = len(spaced.split()) + unspaced // _LETTERS_A_WORD
        if count < self.least:
            return f"{count} words, fewer than {self.least}"
        return f"{count} words, more than {self.most}" if count > self.most else None
