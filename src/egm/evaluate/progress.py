"""Progress of a run: running counts, the early stop for too many errors, and the bar that shows them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from egm.journal import ERROR, Record

if TYPE_CHECKING:
    from rich.progress import Progress, Task

EARLY = 200
"""Samples after which a run may end for its share of errors; before, errors count as a share of so many."""


class RunningCounts:
    """Running counts of a run, and the early stop for too many errors: how many, how many hits, how many errors."""

    def __init__(self, total: int, max_errors: float) -> None:
        self.total, self.max_errors = total, max_errors
        self.done = self.hits = 0
        self.errors: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Count one more record."""
        self.done += 1
        self.hits += record.hit()
        if record.failure == ERROR:
            self.errors[record.error or ""] += 1

    def too_many_errors(self) -> bool:
        """Whether errors have had more than their share."""
        return self.errors.total() > self.max_errors * max(self.done, min(self.total, EARLY))

    def stop_reason(self) -> str:
        """Say that there are too many errors, and what they said most often."""
        said, _ = self.errors.most_common(1)[0]
        return (
            f"{self.errors.total()} errors among {self.done} samples are more than the share of {self.max_errors:g} "
            f"that may fail, most often {said!r}: mend the cause and retry the errors, or allow more"
        )


@contextmanager
def progress_bar(counts: RunningCounts, *, enabled: bool) -> Iterator[Callable[[], None]]:
    """Progress bar on standard error: how far a run is, how good, how fast, how long to go; yields what updates it."""
    from rich.console import Console

    console = Console(stderr=True)
    if not (enabled and console.is_terminal):
        yield lambda: None
        return
    bar = _columns(console)
    task = bar.add_task("evaluating", total=counts.total, completed=counts.done, accuracy="")
    last_update = 0.0

    def update() -> None:
        nonlocal last_update
        now = time.monotonic()
        if now - last_update >= 0.1 or counts.done == counts.total:
            last_update = now
            bar.update(task, completed=counts.done, accuracy=f"Acc@0.5 {100 * counts.hits / counts.done:.2f}")

    with bar:
        yield update


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
        parts.TextColumn("{task.fields[accuracy]}"),
        Rate(),
        parts.TimeRemainingColumn(),
        console=console,
        transient=True,
    )
