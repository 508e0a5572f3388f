"""Backends behind a server: many requests under way at once, answers in the order of their questions."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from typing import Protocol, TypeAlias, TypeVar

from egm.backends.base import Backend, GenerationSettings, Request
from egm.errors import BackendError, EgmError
from egm.types import Completion

Q = TypeVar("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Rounds: TypeAlias = Generator[list[Request], Sequence[Completion], R]
"""Yields what to ask together, is sent the replies in the same order, and returns what they come to."""

_MOST_WAITING = 1024  # errors that wait for an older question count too


class RemoteBackend(Backend):
    """A model behind a server: takes requests at any time, and answers each as soon as it can.

    Attributes:
        concurrency: Connection limit: most requests under way at once; others wait for their turn.
    """

    concurrency: int
    tells_logprobs = False

    def usual_settings(self) -> GenerationSettings:
        """Greedy settings, with answers that the context has room for, where that is known."""
        return GenerationSettings()

    @abstractmethod
    def submit(self, request: Request, settings: GenerationSettings) -> Future[Completion]:
        """Queue a request.

        Returns:
            A future of its reply, which raises BackendError where the tries ran out; cancelling it closes the request.

        Raises:
            BackendError: If the backend is closed.
        """

    @abstractmethod
    def submit_rounds(self, rounds: Rounds[R], settings: GenerationSettings) -> Future[R]:
        """Queue requests that depend on the replies to earlier ones.

        Args:
            rounds: Yields requests to send at once, is sent their replies, and returns the result.
            settings: How to generate, the same for all.

        Returns:
            A future of the result; see `submit`. The first request that fails for good ends the others.

        Raises:
            BackendError: If the backend is closed.
        """

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        """Answer requests; see `Backend.generate`. The first that fails for good ends the others."""
        replies: dict[int, Completion] = {}
        for index, reply in self.generate_each(requests, settings):
            if isinstance(reply, BackendError):
                raise reply
            replies[index] = reply
        return [replies[index] for index in range(len(replies))]

    def generate_each(
        self, requests: Iterable[Request], settings: GenerationSettings, *, limit: int | None = None
    ) -> Iterator[tuple[int, Completion | BackendError]]:
        """Answer requests, and hand out each reply as soon as it is complete.

        Args:
            requests: Questions, read no further ahead than the limit; there may be no end to them.
            settings: How to generate, the same for all.
            limit: Most requests submitted and not yet answered; None is twice the concurrency, so that none of the
                connections waits for the next request.

        Yields:
            The number of a request, counted from 0, and its reply, or the error that was left after all tries. What is
            under way when the iterator is closed, or interrupted by Ctrl-C, is given up.
        """
        limit = 2 * self.concurrency if limit is None else limit
        numbered = enumerate(requests)
        running: dict[Future[Completion], int] = {}
        try:
            while True:
                while len(running) < limit and (item := next(numbered, None)) is not None:
                    running[self.submit(item[1], settings)] = item[0]
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), outcome(future)
        finally:
            for future in running:
                future.cancel()


class _Outcome(Protocol[R_co]):
    """A future as far as it is waited for."""

    def result(self) -> R_co: ...


def outcome(future: _Outcome[R_co]) -> R_co | BackendError:
    """Wait for what `submit` or `submit_rounds` returned: the reply, or the error of the tries."""
    try:
        return future.result()
    except BackendError as error:
        return error
    except CancelledError as error:
        gone = BackendError("the request was given up: the connection was closed")
        gone.__cause__ = error
        return gone


def in_order(
    started: Iterable[tuple[Q, Future[R]] | EgmError], may_start: Callable[[Sequence[Q]], bool]
) -> Iterator[tuple[Q, R] | EgmError]:
    """Wait for the oldest question, and keep the server busy meanwhile.

    Args:
        started: Questions with what `RemoteBackend.submit_rounds` returned, or errors that left nothing to ask; taking
            one starts it. There may be no end to them.
        may_start: Whether another may be started beside those that wait.

    Yields:
        Questions with their replies, or their errors. What is under way when the iterator is closed is given up.
    """
    source, waiting = iter(started), deque[tuple[Q, Future[R]] | EgmError]()
    more = True
    try:
        while True:
            while (
                more
                and len(waiting) < _MOST_WAITING
                and may_start([item[0] for item in waiting if isinstance(item, tuple)])
            ):
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
