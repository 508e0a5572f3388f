"""A task a stage, whose bar stays when it has ended; without bars, a line says that it began, and one that it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TextIO

from egm.progress import ProgressDisplay, ProgressTask

_EVERY = 1.0  # seconds between two looks at how far a job is


class Progress:
    """Shows jobs; use it in a `with` statement.

    Args:
        stream: Where to; standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._display = ProgressDisplay(stream, keep=True)
        self._tasks: dict[str, ProgressTask] = {}
        self._last_update: dict[str, float] = {}

    def __enter__(self) -> Progress:
        """Start to show."""
        self._display.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop, and leave bars as they are."""
        self._display.__exit__(kind, error, at)

    def started(self, name: str, log: Path) -> None:
        """Show that a job was started."""
        self._tasks[name] = self._display.add(name)
        self._print_without_bars(f"{name}: begun, log in {log}")

    def update(self, name: str, count: Callable[[], tuple[int, int] | None]) -> None:
        """Show how far a job is; `count` is asked once a second at most."""
        now = time.monotonic()
        if now - self._last_update.get(name, 0.0) < _EVERY:
            return
        self._last_update[name] = now
        if (so_far := count()) is not None:
            self._tasks[name].update(*so_far)

    def ended(self, name: str, seconds: float) -> None:
        """Show that a job has ended well."""
        self._close(name, f"done in {seconds:.0f} s")
        self._print_without_bars(f"{name}: done in {seconds:.0f} s")

    def failed(self, name: str, tail: Sequence[str]) -> None:
        """Show that a job has failed; `tail` are the last lines that it printed."""
        self._close(name, "failed")
        self.message(f"{name}: failed")
        for line in tail:
            self.message(f"  | {line}")

    def stopped(self, name: str) -> None:
        """Show that a job was told to end, as time was over."""
        self._close(name, "stopped")
        self._print_without_bars(f"{name}: stopped, as time is over")

    def skipped(self, name: str, why: str) -> None:
        """Show that a job will not run."""
        self.message(f"{name}: {why}")

    def message(self, text: str) -> None:
        """Print a line, above the bars if there are any."""
        self._display.print(text)

    def _close(self, name: str, how: str) -> None:
        if (task := self._tasks.pop(name, None)) is not None:
            task.how_ended = how
            self._display.remove(task, keep=True)

    def _print_without_bars(self, text: str) -> None:
        """Print what bars show already, where there are none."""
        if not self._display.has_bars:
            self.message(text)
