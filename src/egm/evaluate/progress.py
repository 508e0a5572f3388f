"""Progress of a run: running counts, the early stop for too many errors, and the bar or the lines that show them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from egm.errors import EgmError
from egm.journal import ERROR, Record

if TYPE_CHECKING:
    from rich.progress import Progress, Task

EARLY = 200
"""Samples after which a run may end for its share of errors; before, errors count as a share of so many."""


LINE_SECONDS: Final = 30.0
"""Seconds between two lines of progress where standard error is no terminal."""


class Counts(Protocol):
    """What progress shows of a run: how many of how many, and in words how good."""

    total: int

    @property
    def done(self) -> int:
        """How many are done."""
        ...

    def short(self) -> str:
        """What a bar says."""
        ...

    def long(self) -> str:
        """What a line says."""
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
        self.errors: Counter[str] = Counter()
        self._first: dict[str, str] = {}  # sample of each, as a picture inside a file has no name to say

    def add(self, record: Record) -> None:
        """Count one more record."""
        self.done += 1
        self.hits += record.hit()
        if record.failure == ERROR:
            self.errors[record.error or ""] += 1
            self._first.setdefault(record.error or "", record.id)

    def short(self) -> str:
        """What a bar says: the accuracy."""
        return f"Acc@0.5 {100 * self.hits / self.done:.2f}" if self.done else ""

    def long(self) -> str:
        """What a line says: accuracy and errors."""
        return ", ".join(filter(None, (self.short(), f"{self.errors.total():,} errors")))

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

    A terminal gets a bar, all else a line every `LINE_SECONDS`. What an interrupted run had answered is said first.
    """
    from rich.console import Console

    if not enabled:
        yield lambda: None
        return
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    if counts.done:
        console.print(f"{counts.done:,} of {counts.total:,} answers were there already")
    if not console.is_terminal:
        yield _lines(counts, console)
        return
    bar = _columns(console)
    shown = bar.add_task(task, total=counts.total, completed=counts.done, says="")
    last_update = 0.0

    def update() -> None:
        nonlocal last_update
        now = time.monotonic()
        if now - last_update >= 0.1 or counts.done == counts.total:
            last_update = now
            bar.update(shown, completed=counts.done, says=counts.short())

    with bar:
        yield update


def _lines(counts: Counts, console: Any) -> Callable[[], None]:
    """What prints a line of progress, if it is time."""
    start = last = time.monotonic()
    before = counts.done

    def update() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < LINE_SECONDS:
            return
        last = now
        rate = (counts.done - before) / max(now - start, 1e-9)
        left = f"{timedelta(seconds=round((counts.total - counts.done) / rate))} to go" if rate else ""
        console.print(
            ", ".join(filter(None, (f"{counts.done:,} of {counts.total:,}", counts.long(), f"{rate:.1f}/s", left)))
        )

    return update


def _columns(console: Any) -> Progress:
    from rich import progress as parts
    from rich.text import Text

    class Rate(parts.ProgressColumn):
        """Samples a second, lately."""

        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f}/s")

    return parts.Progress(
        parts.TextColumn("{task.description}"),
        parts.BarColumn(),
        parts.MofNCompleteColumn(),
        parts.TextColumn("{task.fields[says]}"),
        Rate(),
        parts.TimeRemainingColumn(),
        console=console,
        transient=True,
    )
