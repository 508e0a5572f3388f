"""Progress of a run: running counts, the early stop for too many errors, and the task that shows them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from egm.datasets.benchmarks import measure_title
from egm.errors import EgmError
from egm.journal import ERROR, Record
from egm.progress import progress_task

EARLY = 200
"""Samples after which a run may end for its share of errors; before, errors count as a share of so many."""


class Counts(Protocol):
    """What progress shows of a run: how many of how many, and in words how good."""

    total: int

    @property
    def done(self) -> int:
        """How many are done."""
        ...

    def says(self) -> str:
        """How good it is so far."""
        ...


def check_max_errors(share: float) -> None:
    """Refuse a share of samples that is none.

    Raises:
        EgmError: If it is not from 0 to 1.
    """
    if not 0.0 <= share <= 1.0:
        raise EgmError(f"max_errors {share} is out of range: give a share from 0 to 1")


class RunningCounts:
    """Running counts of a run, and the early stop for too many errors: how many, how many hits, how many errors."""

    def __init__(self, total: int, max_errors: float) -> None:
        self.total, self.max_errors = total, max_errors
        self.done = self.hits = 0
        self.splits: dict[str, None] = {}
        self.errors: Counter[str] = Counter()
        self._first: dict[str, str] = {}  # sample of each, as a picture inside a file has no name to say

    def add(self, record: Record) -> None:
        """Count one more record."""
        self.done += 1
        self.hits += record.hit()
        self.splits.setdefault(record.split)
        if record.failure == ERROR:
            self.errors[record.error or ""] += 1
            self._first.setdefault(record.error or "", record.id)

    def says(self) -> str:
        """Word accuracy and errors so far."""
        failed = self.errors.total()
        errors = f"{failed:,} error{'s' if failed != 1 else ''}" if failed else ""
        accuracy = f"{measure_title(self.splits)} {100 * self.hits / self.done:.2f}" if self.done else ""
        return ", ".join(filter(None, (accuracy, errors)))

    def too_many_errors(self) -> bool:
        """Whether errors have had more than their share."""
        return self.errors.total() > self.max_errors * max(self.done, min(self.total, EARLY))

    def stop_reason(self) -> str:
        """Say that there are too many errors, and what they said most often."""
        said, _ = self.errors.most_common(1)[0]
        return (
            f"{self.errors.total()} errors among {self.done} samples are more than the share of {self.max_errors:g} "
            f"that may fail, most often {said!r}, as at sample {self._first[said]!r}: mend the cause and retry the "
            "errors, or allow more"
        )


@contextmanager
def progress_bar(counts: Counts, *, enabled: bool, task: str = "evaluating") -> Iterator[Callable[[], None]]:
    """Progress on standard error: how far a run is, how good, how fast, how long to go; yields what updates it.

    What an interrupted run had answered is said first.
    """
    if enabled and counts.done:
        print(f"{counts.done:,} of {counts.total:,} answers were there already", file=sys.stderr)  # noqa: T201
    with progress_task(task, counts.total, done=counts.done, enabled=enabled) as shown:
        shown.says = counts.says
        yield lambda: shown.update(counts.done)
