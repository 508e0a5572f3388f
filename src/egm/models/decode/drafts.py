"""Drafts: what an answer may go on with, by n-grams of what was said before. Torch-free.

Prompt lookup: where the newest tokens stood before, what followed them then is a draft of what follows now. The model
reads it behind the newest token in one pass, and keeps as much as it would have written itself; the rest is dropped. So
a draft never changes a text, and only costs time where it is wrong. What is looked through: the frame that the codec
gives an answer, an earlier answer about the same picture, the question, and the answer so far.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

LONGEST_DRAFT: Final = 15
"""Most tokens of a draft: a pass over more costs more than it saves where one of them is wrong."""
SHORTEST_DRAFT: Final = 7
"""Fewest of a draft, where there are so many: a pass of 8 rows costs egm-tiny no more than one of 2."""
_LONGEST_GRAM: Final = 4
_BOUNDARY: Final = -1  # no token: what follows a text's end is nobody's guess


class NGramDrafts:
    """Looks drafts up in texts, the newest place first, by the longest n-gram of up to four tokens.

    A draft is long after one that was right for as long as a short one is, and else short.

    Args:
        texts: Tokens of what the answer may repeat; of two places the later one is taken.

    Example:
        >>> drafts = NGramDrafts([[1, 2, 3, 4, 5]])
        >>> drafts.take([9, 2])
        >>> drafts.propose(8)
        [3, 4, 5]
    """

    def __init__(self, texts: Iterable[Sequence[int]] = ()) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # where the token stands that followed an n-gram last
        self._length = SHORTEST_DRAFT
        for text in texts:
            self.take(text)
            self._tokens.append(_BOUNDARY)

    def take(self, tokens: Sequence[int]) -> None:
        """Add what was written."""
        for token in tokens:
            place = len(self._tokens)
            for gram in range(1, min(_LONGEST_GRAM, place) + 1):
                self._after[tuple(self._tokens[place - gram :])] = place
            self._tokens.append(token)

    def propose(self, room: int) -> list[int]:
        """Return what may come next: at most `room` tokens, none where nothing like it was seen."""
        for gram in range(min(_LONGEST_GRAM, len(self._tokens)), 0, -1):
            place = self._after.get(tuple(self._tokens[-gram:]))
            if place is not None:
                return self._copy(place, min(self._length, room))
        return []

    def _copy(self, place: int, length: int) -> list[int]:
        draft: list[int] = []
        for at in range(place, place + length):
            # Past the newest token stands the draft itself, so that a pattern goes on.
            token = self._tokens[at] if at < len(self._tokens) else draft[at - len(self._tokens)]
            if token == _BOUNDARY:
                break
            draft.append(token)
        return draft

    def learn(self, drafted: int, accepted: int) -> None:
        """Be told how many tokens of the last draft were right, to choose the length of the next."""
        if drafted:
            self._length = LONGEST_DRAFT if accepted >= min(drafted, SHORTEST_DRAFT) else SHORTEST_DRAFT


@dataclass(slots=True)
class DraftCounts:
    """What drafts saved.

    Attributes:
        passes: Passes of the model, each after the first reading of a prompt.
        tokens: Tokens that they wrote.
        drafted: Tokens that were drafted.
        accepted: Tokens of these that the model would have written.
    """

    passes: int = 0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
