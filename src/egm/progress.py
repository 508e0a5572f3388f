"""Progress on standard error: how far, how fast, how long to go; as bars, or lines where it is no terminal.

Whatever takes long says so by `track` or `progress_task`. That shows nothing by itself, so that a library stays quiet:
the command line asks for it, for all that it calls (`ask_for_progress`), and a caller may for one task.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, TypeAlias, TypeVar

from egm.terminal import spaced

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")
Unit: TypeAlias = Literal["", "bytes"]

LINE_SECONDS: Final = 30.0
"""Seconds between two lines of a task where standard error is no terminal."""
_BAR_WIDTH: Final = 20  # of 80 columns: figures and names take the others
_MOST_NAME: Final = 40  # characters beside a bar
_REDRAW: Final = 0.2  # seconds
_LONGEST: Final = 100 * 86400.0  # seconds: what is said to take longer is not known well enough to be said


class ProgressTask:
    """A piece of work that takes its time, as its display shows it.

    Args:
        name: What is done, such as "evaluating".
        total: How many there are to do; None where nobody knows.
        done: How many were done before; they make nothing quicker.
        unit: "bytes", or nothing for things that are counted.
        clock: Seconds since whenever.

    Attributes:
        name: As given.
        total: As given; may be set once it is known.
        done: How many are done.
        says: What else to say, such as an accuracy so far; a function is asked whenever it is shown.
        how_ended: What is said in the place of all that of one that has ended, such as "done".
    """

    def __init__(
        self,
        name: str,
        total: float | None = None,
        *,
        done: float = 0,
        unit: Unit = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.total, self.done, self._unit = name, total, done, unit
        self.says: str | Callable[[], str] = ""
        self._before, self._clock = done, clock
        self._start = self._counted_from = clock()
        self.how_ended = ""

    def advance(self, count: float = 1) -> None:
        """Say that so many more are done."""
        self.done += count

    def update(self, done: float, total: float | None = None) -> None:
        """Say how many are done, and of how many; where that is known only now, these were done before."""
        if self.total is None and total is not None:
            self._before, self._counted_from = done, self._clock()
        self.done = done
        self.total = self.total if total is None else total

    def figures(self) -> str:
        """Word how far it is, what else there is to say, how fast it is and how long it will take.

        Example:
            >>> now = iter([0.0, 20.0])
            >>> ProgressTask("reading", 100, clock=lambda: next(now)).figures()
            '0 of 100, 0:00:20 so far'
        """
        if self.how_ended:
            return self.how_ended
        now, made = self._clock(), self.done - self._before
        said = self.says() if callable(self.says) else self.says
        rate = made / (now - self._counted_from) if made > 0 and now > self._counted_from else 0.0
        pace = [_rate(rate, self._unit)] if rate else [f"{timedelta(seconds=round(now - self._start))} so far"]
        if rate and self.total is not None and (left := max(self.total - self.done, 0) / rate) < _LONGEST:
            pace.append(f"{timedelta(seconds=round(left))} to go")
        # What is said last is cut off first, and of what is not counted that may be any line of somebody's log.
        said_and_pace = (said, *pace) if self.total is not None else (*pace, said)
        return ", ".join(filter(None, (_amount(self.done, self.total, self._unit), *said_and_pace)))

    def line(self) -> str:
        """Word it with its name, as a line of its own."""
        return spaced(f"{self.name}: {self.figures()}")


class ProgressDisplay:
    """Shows tasks on standard error while a `with` statement lasts; what is printed there meanwhile stands above them.

    Args:
        stream: Where to; standard error by default.
        clock: Seconds since whenever.
        keep: Whether bars stay when it ends; else they go, and leave a clean line, whatever ended it.

    Attributes:
        has_bars: Whether the stream is a terminal that bars can be drawn on.
    """

    def __init__(
        self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic, keep: bool = False
    ) -> None:
        self._stream, self._clock, self._keep = stream, clock, keep
        self._tasks: list[ProgressTask] = []
        self._last, self._ended = clock(), threading.Event()
        # What forces colours does not count: it is set for files too, where a bar would be thousands of lines.
        can_move = os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
        self.has_bars = can_move and (stream or sys.stderr).isatty()
        self._bars: Progress | None = None
        self._rows: dict[ProgressTask, TaskID] = {}

    def __enter__(self) -> ProgressDisplay:
        """Begin to show, and take up all tasks that begin meanwhile."""
        if self.has_bars:
            self._bars = _bars(self._stream, keep=self._keep)
            self._bars.start()
        else:
            # A thread, as what takes minutes to come back is what should be heard of.
            threading.Thread(target=self._tick_on, name="progress", daemon=True).start()
        _displays.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop; more than once does no harm."""
        if self in _displays:
            _displays.remove(self)
        self._ended.set()
        if self._bars is not None:
            self._bars.stop()

    @contextmanager
    def task(
        self, name: str, total: float | None = None, *, done: float = 0, unit: Unit = ""
    ) -> Iterator[ProgressTask]:
        """Show a task until the block ends; see `ProgressTask`."""
        task = self.add(name, total, done=done, unit=unit)
        try:
            yield task
        finally:
            self.remove(task)

    def add(self, name: str, total: float | None = None, *, done: float = 0, unit: Unit = "") -> ProgressTask:
        """Show a task until it is removed, or the display ends."""
        task = ProgressTask(name, total, done=done, unit=unit, clock=self._clock)
        self._tasks.append(task)
        if self._bars is not None:
            self._rows[task] = self._bars.add_task(spaced(name)[:_MOST_NAME], total=None, shown=task)
        return task

    def remove(self, task: ProgressTask, *, keep: bool = False) -> None:
        """Show a task no longer; or keep its bar as it is."""
        if task in self._tasks:
            self._tasks.remove(task)
        if task not in self._rows:
            return
        if self._bars is not None and keep:
            self._bars.stop_task(self._rows.pop(task))
        elif self._bars is not None:
            self._bars.remove_task(self._rows.pop(task))

    def print(self, text: str) -> None:
        """Print lines, above the bars if there are any."""
        text = "\n".join(map(spaced, text.split("\n")))
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._stream or sys.stderr, flush=True)

    def tick(self) -> None:
        """Print a line for each task, where there are no bars and it is time."""
        now = self._clock()
        if not self.has_bars and now - self._last >= LINE_SECONDS:
            self._last = now
            for task in list(self._tasks):
                self.print(task.line())

    def _tick_on(self) -> None:
        while not self._ended.wait(max(_REDRAW, self._last + LINE_SECONDS - self._clock())):
            self.tick()


_displays: list[ProgressDisplay] = []
"""Those that are open, the last of which takes new tasks."""
_asked = False


@contextmanager
def ask_for_progress() -> Iterator[None]:
    """Have all that takes long show its progress while a `with` statement lasts, and let no bar outlast it."""
    global _asked  # of a process, as its standard error is
    before, _asked = _asked, True
    try:
        yield
    finally:
        _asked = before
        while _displays:  # an error may hold on to a generator that shows something
            _displays[-1].__exit__(None, None, None)


@contextmanager
def progress_task(
    name: str, total: float | None = None, *, done: float = 0, unit: Unit = "", enabled: bool | None = None
) -> Iterator[ProgressTask]:
    """Show a piece of work for as long as the `with` block lasts, in the display that is open if there is one.

    Args:
        name: What is done.
        total: How many there are to do; None where nobody knows.
        done: How many were done before.
        unit: "bytes", or nothing.
        enabled: Whether to show it; None shows it where progress was asked for (`ask_for_progress`).

    Yields:
        What is told how far it is.
    """
    if not (_asked or _displays if enabled is None else enabled):
        yield ProgressTask(name, total, done=done, unit=unit)
    elif _displays:
        with _displays[-1].task(name, total, done=done, unit=unit) as task:
            yield task
    else:
        with ProgressDisplay() as display, display.task(name, total, done=done, unit=unit) as task:
            yield task


def track(
    items: Iterable[T],
    name: str,
    total: float | None = None,
    *,
    says: str | Callable[[], str] = "",
    enabled: bool | None = None,
) -> Iterator[T]:
    """Go through items, and show how far that is.

    Args:
        items: The items.
        name: What is done with them.
        total: How many there are; by default as many as they say themselves.
        says: What else to say, see `ProgressTask`.
        enabled: As of `progress_task`.

    Yields:
        Each of them.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress_task(name, total, enabled=enabled) as task:
        task.says = says
        for item in items:
            yield item
            task.advance()


def _bars(stream: TextIO | None, *, keep: bool) -> Progress:
    from rich import progress as parts
    from rich.console import Console
    from rich.table import Column
    from rich.text import Text

    class Bar(parts.BarColumn):
        """How much of a task is done; moves where that is not known."""

        def render(self, task: Any) -> Any:
            shown = task.fields["shown"]
            task.total, task.completed = (1, 1) if shown.how_ended else (shown.total, shown.done)
            return super().render(task)

    class Figures(parts.ProgressColumn):
        """What a task says of itself."""

        def render(self, task: Any) -> Text:
            return Text(spaced(task.fields["shown"].figures()))

    return parts.Progress(
        parts.TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        Bar(_BAR_WIDTH),
        Figures(Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        console=Console(stderr=True) if stream is None else Console(file=stream),
        transient=not keep,
        expand=True,
        redirect_stdout=False,  # which may be a file, and is not to end up here
        refresh_per_second=1 / _REDRAW,
    )


def _amount(done: float, total: float | None, unit: Unit) -> str:
    if unit == "bytes":
        scale, name, digits = (1e9, "GB", 2) if (total or done) >= 1e9 else (1e6, "MB", 1)
        of = "" if total is None else f" of {total / scale:.{digits}f}"
        return f"{done / scale:.{digits}f}{of} {name}"
    if total is None:
        return f"{done:,.0f}" if done else ""
    return f"{done:,.0f} of {total:,.0f}"


def _rate(rate: float, unit: Unit) -> str:
    if unit == "bytes":
        return f"{rate / 1e6:.1f} MB/s"
    if rate < 1:
        return f"{1 / rate:.1f} s each"
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.1f}/s"
