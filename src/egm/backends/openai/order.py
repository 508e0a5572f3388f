"""Answers in the order of their questions, while younger questions are under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

from egm.backends.openai.backend import outcome
from egm.errors import BackendError, EgmError

Q = TypeVar("Q")
R = TypeVar("R")

_MOST = 1024  # errors that wait for an older question count too


def in_order(
    started: Iterable[tuple[Q, Future[R]] | EgmError], room: Callable[[Sequence[Q]], bool]
) -> Iterator[tuple[Q, R] | EgmError]:
    """Wait for the oldest question, and keep the server busy meanwhile.

    Args:
        started: Questions with what `OpenAIBackend.submit_rounds` returned, or errors that left nothing to ask; taking
            one starts it. There may be no end to them.
        room: Whether another may be started beside those that wait.

    Yields:
        Questions with their replies, or their errors. What is under way when the iterator is closed is given up.
    """
    source, waiting = iter(started), deque[tuple[Q, Future[R]] | EgmError]()
    more = True
    try:
        while True:
            while more and len(waiting) < _MOST and room([item[0] for item in waiting if isinstance(item, tuple)]):
                item = next(source, None)
                if item is None:
                    more = False
                elif not waiting and isinstance(item, EgmError):
                    yield item
                else:
                    waiting.append(item)
            if not waiting:
                return
            oldest = waiting[0]
            if isinstance(oldest, tuple):
                reply = outcome(oldest[1])
                waiting.popleft()
                if isinstance(reply, BackendError):
                    yield reply
                else:
                    yield oldest[0], reply
            else:
                waiting.popleft()
                yield oldest
    finally:
        for left in waiting:
            if isinstance(left, tuple):
                left[1].cancel()
