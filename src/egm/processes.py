"""Processes that end with the one that started them, and what ends on SIGTERM as it does on Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Terminated(KeyboardInterrupt):
    """Raised where SIGTERM ends what runs."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end what runs within as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the library's signature
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the system send this process a signal when the one that started it is gone; nothing where it cannot."""
    _prctl(_PR_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent is gone, so that `descendants` finds it; on Linux only."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def descendants(ancestor: int) -> list[int]:
    """Number all processes that a process has begun, and those that these have, but those that have ended.

    Returns:
        Their numbers; none where the system has no `/proc`.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        if state not in "ZX":
            children.setdefault(int(parent), []).append(int(entry.parent.name))
    found, waiting = list[int](), [ancestor]
    while waiting:
        begun = children.get(waiting.pop(), [])
        found += begun
        waiting += begun
    return found


def send(processes: list[int], number: int) -> None:
    """Send a signal to processes, of which some may have ended."""
    for process in processes:
        try:
            os.kill(process, number)
        except (ProcessLookupError, PermissionError):
            continue
