"""Rationales that repeat themselves: words in a row, loops, and sentences that come again and again."""

from __future__ import annotations

import itertools
import operator
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Final

from egm.rationales.candidate import Candidate
from egm.rationales.filters.base import Filter, register_filter
from egm.rationales.filters.words import excerpt, sentences, words

_LONGEST_LOOP: Final = 24
"""Words of the longest loop that is looked for; longer ones repeat whole sentences."""
_WORDS_OF_A_SENTENCE: Final = 3
"""Fewer are no sentence, as an enumeration may hold "on the left" any number of times."""


@register_filter
@dataclass(frozen=True)
class RepeatedWords(Filter):
    """Drops loops.

    Attributes:
        times: How often in a row the same three words or more may stand, less one; one or two words may stand once
            more than that.
        sentences: How often the same sentence may stand, less one.
    """

    name: ClassVar[str] = "repetition"
    reason: ClassVar[str] = "it repeats itself"
    times: int = 3
    sentences: int = 3

    def check(self, candidate: Candidate) -> str | None:
        """Look for loops; see `Filter.check`."""
        counts = Counter(
            tuple(said) for said in map(words, sentences(candidate.text)) if len(said) >= _WORDS_OF_A_SENTENCE
        )
        for said, count in counts.most_common(1):
            if count >= self.sentences:
                return f"{count} times the sentence {excerpt(' '.join(said))!r}"
        said_words = words(candidate.text)
        letters = list(itertools.accumulate((not word.isdecimal() for word in said_words), initial=0))
        for length in range(1, min(_LONGEST_LOOP, len(said_words) // 2) + 1):
            if (loop := self._loop(said_words, length, letters)) is not None:
                return f"in a row, several times: {excerpt(loop)!r}"
        return None

    def _loop(self, said: list[str], length: int, letters: list[int]) -> str | None:
        """Find words that stand in a row too often; each word that equals the one a loop before it lengthens a run.

        Numbers alone are no loop: `letters` counts, for each place, the words before it that are none.
        """
        times = max(2, self.times + (1 if length < _WORDS_OF_A_SENTENCE else 0))
        if sum(map(operator.eq, said[length:], said)) < length * (times - 1):
            return None
        run = 0
        for i in range(length, len(said)):
            run = run + 1 if said[i] == said[i - length] else 0
            if run >= length * (times - 1) and letters[i + 1] > letters[i + 1 - length]:
                return " ".join(said[i - length + 1 : i + 1])
        return None
