"""Progress: bars on a terminal, lines elsewhere, nothing where nobody asked, and nothing that stays."""

from __future__ import annotations

import io
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from egm.progress import LINE_SECONDS, ProgressDisplay, ProgressTask, ask_for_progress, progress_task, track

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


Begin = Callable[[], Any]


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A terminal, as a stream tells that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize(
    ("total", "before", "done", "seconds", "figures"),
    [
        (5000, 0, 0, 12, "0 of 5,000, 0:00:12 so far"),
        (5000, 0, 2000, 10, "2,000 of 5,000, 200/s, 0:00:15 to go"),
        (100, 0, 20, 10, "20 of 100, 2.0/s, 0:00:40 to go"),
        (100, 0, 2, 60, "2 of 100, 30.0 s each, 0:49:00 to go"),
        (100, 50, 60, 10, "60 of 100, 1.0/s, 0:00:40 to go"),  # what was there already made nothing quicker
        (100, 0, 100, 10, "100 of 100, 10.0/s, 0:00:00 to go"),
        (10**9, 0, 1, 60, "1 of 1,000,000,000, 60.0 s each"),  # years are no answer
        (None, 0, 0, 90, "0:01:30 so far"),
        (None, 0, 30, 10, "30, 3.0/s"),
    ],
)
def test_figures_say_how_far_how_fast_and_how_long(
    clock: Clock, total: float | None, before: float, done: float, seconds: float, figures: str
) -> None:
    task = ProgressTask("reading", total, done=before, clock=clock)
    clock.now += seconds
    task.update(done)
    assert (task.figures(), task.line()) == (figures, f"reading: {figures}")


def test_bytes_are_told_in_their_own_words(clock: Clock) -> None:
    task = ProgressTask("fetching", unit="bytes", clock=clock)
    task.update(0, 16e9)
    clock.now += 10
    task.advance(4e9)
    assert task.figures() == "4.00 of 16.00 GB, 400.0 MB/s, 0:00:30 to go"
    small = ProgressTask("fetching", 20e6, unit="bytes", clock=clock)
    small.advance(2.5e6)
    assert small.figures() == "2.5 of 20.0 MB, 0:00:00 so far"


def test_what_was_done_before_the_total_is_known_is_no_pace(clock: Clock) -> None:
    task = ProgressTask("training", clock=clock)
    clock.now += 100  # a checkpoint is loaded
    task.update(500, 1000)
    assert task.figures() == "500 of 1,000, 0:01:40 so far"
    clock.now += 10
    task.update(510)
    assert task.figures() == "510 of 1,000, 1.0/s, 0:08:10 to go"


def test_what_else_is_said_is_asked_for_when_it_is_shown_and_cannot_steer(clock: Clock) -> None:
    task = ProgressTask("evaluating \x1b[2J", 2, clock=clock)
    task.says = lambda: f"Acc@0.5 {task.done}\x1b[31m"
    task.advance()
    clock.now += 1
    lost = "\N{REPLACEMENT CHARACTER}"
    assert task.line() == f"evaluating {lost}[2J: 1 of 2, Acc@0.5 1{lost}[31m, 1.0/s, 0:00:01 to go"


def test_a_line_of_somebodys_log_stands_behind_how_long_it_has_been(clock: Clock) -> None:
    task = ProgressTask("starting", clock=clock)
    task.says = "INFO loading weights"
    clock.now += 61
    assert task.figures() == "0:01:01 so far, INFO loading weights"


def test_a_long_name_or_line_leaves_room_for_the_other(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    with ProgressDisplay(stream, clock=clock, keep=True) as display:
        display.add("loading " + "/a/long/path" * 20)
        display.add("starting").says = "INFO " * 100
    shown = plain(stream.getvalue())
    assert "loading /a/long" in shown
    assert "starting " in shown
    assert shown.count("0:00:00 so far") >= 2


def test_off_a_terminal_each_task_has_a_line_every_half_minute(clock: Clock) -> None:
    assert LINE_SECONDS == 30
    stream = io.StringIO()
    with ProgressDisplay(stream, clock=clock) as display, display.task("training", 10) as one:
        assert not display.has_bars
        clock.now += 29
        display.tick()
        assert stream.getvalue() == ""
        one.update(3)
        clock.now += 1
        display.tick()
        display.tick()
        assert stream.getvalue() == "training: 3 of 10, 10.0 s each, 0:01:10 to go\n"
        with display.task("held-out loss"):  # what comes in between has its own
            clock.now += 30
            display.tick()
        clock.now += 30
        display.tick()
    clock.now += 30
    display.tick()
    lines = [line.partition(":")[0] for line in stream.getvalue().splitlines()]
    assert lines == ["training", "training", "held-out loss", "training"]


def test_lines_come_also_while_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egm.progress.LINE_SECONDS", 0.0)
    written: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            waited.set()
            return len(text)

    waited = threading.Event()
    with ProgressDisplay(Stream()) as display, display.task("loading egm-8b"):
        assert waited.wait(60)
    assert written[0].startswith("loading egm-8b: 0:00:00 so far")


def test_on_a_terminal_a_bar_moves_and_leaves_a_clean_line(clock: Clock) -> None:
    stream = Terminal()
    with ProgressDisplay(stream, clock=clock) as display, display.task("evaluating", 4) as task:
        task.advance(2)
        clock.now += 4
        display.print("note: \x1b[2J")
    text = stream.getvalue()
    assert "evaluating" in text
    assert "note: \N{REPLACEMENT CHARACTER}[2J" in text
    assert text.rindex(SHOW) > text.rindex(HIDE)
    assert plain(text).splitlines()[-1].strip() == ""


def test_a_bar_shows_what_a_line_says(clock: Clock) -> None:
    stream = Terminal()
    with ProgressDisplay(stream, clock=clock, keep=True) as display:
        task = display.add("evaluating", 4)
        task.says = "Acc@0.5 50.00"
        task.advance(2)
        clock.now += 4
    assert "2 of 4, Acc@0.5 50.00, 2.0 s each, 0:00:04 to go" in plain(stream.getvalue())


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_move_has_lines(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    monkeypatch.setenv("TERM", term)
    assert not ProgressDisplay(Terminal()).has_bars


def test_colours_that_are_forced_make_a_file_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not ProgressDisplay(io.StringIO()).has_bars


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Make standard error a terminal; within a test, as pytest takes it back between a fixture and a test."""

    def begun() -> Terminal:
        made = Terminal()
        monkeypatch.setattr("sys.stderr", made)
        return made

    return begun


def test_nothing_is_shown_unless_it_is_asked_for(begin: Begin) -> None:
    terminal = begin()
    assert [*track([1, 2], "reading")] == [1, 2]
    with progress_task("reading") as task:
        task.advance()
    assert terminal.getvalue() == ""
    assert [*track([1, 2], "reading", enabled=True)] == [1, 2]
    assert "reading" in terminal.getvalue()


def test_a_command_shows_all_that_it_calls_but_what_is_to_be_quiet(begin: Begin) -> None:
    terminal = begin()
    with ask_for_progress():
        assert [*track(iter("ab"), "reading", 2)] == ["a", "b"]
        assert [*track("ab", "hidden", enabled=False)] == ["a", "b"]
    assert "reading" in terminal.getvalue()
    assert "hidden" not in terminal.getvalue()


def test_tasks_within_a_task_are_shown_below_it(begin: Begin) -> None:
    terminal = begin()
    with progress_task("training", 9, enabled=True):
        for _ in track("ab", "held-out loss"):
            pass
        text = plain(terminal.getvalue())
    assert "training" in text
    assert "held-out loss" in text


@pytest.mark.parametrize("end", [KeyboardInterrupt, ValueError])
def test_no_bar_outlasts_a_command_whatever_ends_it(begin: Begin, end: Callable[[], BaseException]) -> None:
    terminal = begin()

    def held() -> Iterator[int]:
        yield from track([1, 2], "reading")

    each = held()  # which an error's traceback may hold on to

    def command() -> None:
        with ask_for_progress():
            next(each)
            raise end()

    with pytest.raises((KeyboardInterrupt, ValueError)):
        command()
    text = terminal.getvalue()
    assert text.rindex(SHOW) > text.rindex(HIDE)
    assert [*each] == [2]
    assert terminal.getvalue() == text


def test_standard_output_is_left_alone_while_a_bar_is_shown(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = begin()
    with progress_task("reading", enabled=True):
        sys.stdout.write('{"json": 1}\n')
    assert capsys.readouterr().out == '{"json": 1}\n'
    assert "json" not in terminal.getvalue()
