"""A line a stage: on a terminal it moves while the stage runs; elsewhere one says that it began, one that it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from egm.terminal import spaced

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

_EVERY = 1.0  # seconds between two looks at how far a job is


class Progress:
    """Shows jobs; use it in a `with` statement.

    Args:
        console: Where to; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self.console = console or Console(stderr=True, highlight=False)
        columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}", markup=False), BarColumn())
        self._bars = Bars(
            *columns,
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_update: dict[str, float] = {}

    def __enter__(self) -> Progress:
        """Start the bars."""
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop the bars, and leave them as they are."""
        self._bars.stop()

    def started(self, name: str, log: Path) -> None:
        """Show that a job was started."""
        self._tasks[name] = self._bars.add_task(name, total=None)
        self._print_without_bars(f"{name}: begun, log in {log}")

    def update(self, name: str, count: Callable[[], tuple[int, int] | None]) -> None:
        """Show how far a job is, where there are bars; `count` is asked once a second at most."""
        now = time.monotonic()
        if self._bars.disable or now - self._last_update.get(name, 0.0) < _EVERY:
            return
        self._last_update[name] = now
        if (so_far := count()) is not None:
            self._bars.update(self._tasks[name], completed=so_far[0], total=so_far[1])

    def ended(self, name: str, seconds: float) -> None:
        """Show that a job has ended well."""
        total = self._bars.tasks[self._tasks[name]].total if name in self._tasks else None
        self._bars.update(self._tasks[name], completed=total or 1, total=total or 1)
        self._print_without_bars(f"{name}: done in {seconds:.0f} s")

    def failed(self, name: str, tail: Sequence[str]) -> None:
        """Show that a job has failed; `tail` are the last lines that it printed."""
        self._bars.stop_task(self._tasks[name])
        self._print(f"{name}: failed")
        for line in tail:
            self._print(f"  | {line}")

    def skipped(self, name: str, why: str) -> None:
        """Show that a job will not run."""
        self._print(f"{name}: {why}")

    def message(self, text: str) -> None:
        """Print a line, above the bars if there are any."""
        self._print(text)

    def _print_without_bars(self, text: str) -> None:
        """Print what bars show already, where there are none."""
        if self._bars.disable:
            self._print(text)

    def _print(self, text: str) -> None:
        self.console.print("\n".join(map(spaced, text.split("\n"))), markup=False, soft_wrap=True)
