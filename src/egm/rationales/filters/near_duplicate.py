"""Rationales that say what an earlier one said: a teacher that answers any question with the same words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from egm.errors import RecipeError
from egm.extras import need
from egm.rationales.candidate import Candidate
from egm.rationales.filters.base import Filter, register_filter
from egm.rationales.filters.words import sentences, words

_SHINGLE: Final = 2
_PERMUTATIONS: Final = 128
_WEIGHTS: Final = (0.1, 0.9)
"""How bad it is to look at a pair in vain, and to overlook one: what is found is compared by its signature anyway."""
_FEWEST_WORDS: Final = 6
"""Shorter sentences, such as "That settles it.", are left out of the comparison where there are longer ones."""


@register_filter
@dataclass
class NearDuplicate(Filter):
    """Drops what has mostly the same pairs of words as a rationale that was kept for another object.

    Sets of pairs are compared by MinHash (Broder, 1997) of the datasketch package, with 128 permutations: an estimate
    of the Jaccard similarity with a standard error of about 0.04. Rationales of one object may be alike: of the same
    box in pictures of the same size.

    Attributes:
        threshold: Jaccard similarity from which on two rationales are too much alike.
    """

    name: ClassVar[str] = "near_duplicate"
    reason: ClassVar[str] = "it says almost the same as a rationale of another object"
    threshold: float = 0.7
    _kept: dict[str, tuple[Any, str, object]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise RecipeError(f"threshold is {self.threshold}: give a similarity above 0, at most 1")
        need("the filter near_duplicate", "datasketch")
        from datasketch import MinHash, MinHashLSH

        self._index = MinHashLSH(threshold=self.threshold, num_perm=_PERMUTATIONS, weights=_WEIGHTS)
        self._empty = MinHash(num_perm=_PERMUTATIONS)
        self._last: tuple[str, Any] | None = None

    def check(self, candidate: Candidate) -> str | None:
        """Look among those that were kept; see `Filter.check`."""
        signature = self._signature(candidate.text)
        for key in self._index.query(signature):
            other, name, place = self._kept[key]
            likeness = signature.jaccard(other)
            if likeness >= self.threshold and place != _object(candidate):
                return f"alike to {likeness:.0%} with that of sample {name}"
        return None

    def remember(self, candidate: Candidate) -> None:
        """Compare later ones with this; see `Filter.remember`."""
        signature = self._signature(candidate.text)
        key = str(len(self._kept))
        self._kept[key] = signature, candidate.sample.id, _object(candidate)
        self._index.insert(key, signature, check_duplication=False)

    def _signature(self, text: str) -> Any:
        """The signature of a text; that of the last one is at hand, as `remember` follows `check`."""
        if self._last is None or self._last[0] != text:
            every = [words(sentence) for sentence in sentences(text)]
            longer = [said for said in every if len(said) >= _FEWEST_WORDS] or every
            pairs = {
                " ".join(said[i : i + _SHINGLE]) for said in longer for i in range(max(1, len(said) - _SHINGLE + 1))
            }
            signature = self._empty.copy()  # a new one would draw its permutations anew
            signature.update_batch([pair.encode("utf-8", "replace") for pair in pairs])
            self._last = text, signature
        return self._last[1]


def _object(candidate: Candidate) -> object:
    """What two rationales of one object share, also those of a mirrored copy's original."""
    return candidate.box, candidate.size
