"""Running counts of a run of rationales: kept, dropped and by which filter; and the early report of a bad teacher."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from egm.rationales.prices import Spending

EARLY_ROWS: Final = 50
"""Samples that are looked back on for whether a teacher is any good."""
EARLY_SHARE: Final = 0.9
"""The share of these whose first answer is dropped that ends a run."""
FAILED: Final = "no answer"
"""What a call that failed is counted under, among the filters."""


class Tally:
    """What became of samples so far.

    Args:
        total: How many samples the run has.
        spending: What the calls take.

    Attributes:
        kept: Samples with a rationale.
        dropped: Samples whose tries were all dropped.
        unasked: Those of them that nobody was asked about, as their pictures are evaluated on.
        failed: Samples whose call failed: a resumed run asks them again.
        errors: What they failed with.
        tries: Tries that were decided on.
        by_filter: Tries, and samples unasked, that a filter spoke against, by its name; several may speak against one.
    """

    def __init__(self, total: int, spending: Spending) -> None:
        self.total, self.spending = total, spending
        self.kept = self.dropped = self.unasked = self.failed = self.tries = 0
        self.errors: Counter[str] = Counter()
        self.by_filter: Counter[str] = Counter()
        self._last: deque[tuple[str, ...]] = deque(maxlen=EARLY_ROWS)

    @property
    def done(self) -> int:
        """Samples that are settled."""
        return self.kept + self.dropped + self.failed

    def add_try(self, against: Iterable[str], *, is_first: bool = True) -> None:
        """Count a try, with the filters that spoke against it; of a sample's tries the first tells of the teacher."""
        names = tuple(against)
        self.tries += 1
        self.by_filter.update(names)
        if is_first:
            self._last.append(names)

    def add_unasked(self, against: Iterable[str]) -> None:
        """Count a sample that was dropped before anybody was asked about it, with the filters that spoke against it."""
        self.dropped += 1
        self.unasked += 1
        self.by_filter.update(tuple(against))

    def add_failure(self, error: str) -> None:
        """Count a sample whose call failed."""
        self.failed += 1
        self.errors[error] += 1
        self._last.append((FAILED,))

    def bad_teacher(self) -> str | None:
        """Say that nearly all of the last answers were dropped, and by what; None where they were not."""
        dropped = [names for names in self._last if names]
        if len(self._last) < EARLY_ROWS or len(dropped) < EARLY_SHARE * EARLY_ROWS:
            return None
        counts = Counter(name for names in dropped for name in names)
        listed = ", ".join(f"{name} {count}" for name, count in counts.most_common(3))
        if counts[FAILED] == len(dropped):
            return f"{len(dropped)} of the last {EARLY_ROWS} calls failed: {self.usual_error()}"
        return f"{len(dropped)} of the last {EARLY_ROWS} answers were dropped ({listed})"

    def usual_error(self) -> str:
        """What most of the calls that failed failed with; nothing where none did."""
        return next((error for error, _ in self.errors.most_common(1)), "")

    def says(self) -> str:
        """Word how many were kept so far, what that took, and how many are without an answer."""
        share = f"kept {100 * self.kept / self.done:.0f} %" if self.done else ""
        failed = f"{self.failed:,} without an answer" if self.failed else ""
        return ", ".join(filter(None, (share, self.cost(), failed)))

    def cost(self) -> str:
        """What was spent so far, in words."""
        return cost_text(self.spending)


def cost_text(spending: Spending) -> str:
    """Word what calls have taken: tokens, and money where there is a price list."""
    if not spending.tokens:
        return ""
    money = f", {spending.money:.4g} {spending.prices.currency}" if spending.prices is not None else ""
    return f"{spending.tokens:,} tokens{money}"
