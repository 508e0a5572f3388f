"""Requests that wait are answered together, in one thread, in which alone the backend runs."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from egm.backends.base import Backend, GenerationSettings, Request
from egm.errors import BackendError, RequestError
from egm.server.errors import HttpError
from egm.server.limits import RETRY_AFTER
from egm.types import Completion

log = logging.getLogger(__name__)
R = TypeVar("R")

_ENDING = HttpError(503, "the server is ending: ask it again once it is back", headers=RETRY_AFTER)


@dataclass(frozen=True, slots=True)
class Finished:
    """An answer that has come to its end.

    Attributes:
        completion: It.
        text: What of that no piece has brought yet.
    """

    completion: Completion
    text: str


Event: TypeAlias = str | Finished | HttpError
"""A piece of the text, the end, or why there is none."""


class QueuedRequest:
    """A request on its way through the backend.

    Args:
        request: What to ask.
        settings: How to generate.
        tell: Takes what happens, in the thread of the backend.
    """

    def __init__(self, request: Request, settings: GenerationSettings, tell: Callable[[Event], None]) -> None:
        self.request, self.settings = replace(request, on_text=self._on_text), settings
        self.given_up = False
        self.meanwhile: Callable[[], None] = lambda: None
        self._tell = tell
        self._told: list[str] = []

    @property
    def begun(self) -> bool:
        """Whether any text has come."""
        return any(self._told)

    def end(self, reply: Completion) -> None:
        """Tell the end of the answer, or of what was given up nothing."""
        if self.given_up:
            return
        before = "".join(self._told)
        if not reply.text.startswith(before):
            self.fail(HttpError(500, "the backend told another text than it wrote"))
            return
        self._tell(Finished(reply, reply.text[len(before) :]))

    def fail(self, error: HttpError) -> None:
        """Tell that there is no answer, unless nobody waits for one."""
        if not self.given_up:
            self.given_up = True
            self._tell(error)

    def _on_text(self, piece: str) -> bool:
        self.meanwhile()
        if self.given_up:
            return True
        if piece:
            self._told.append(piece)
            self._tell(piece)
        return False


class Scheduler:
    """Runs a backend in a thread of its own, and takes what is to be asked from any thread.

    Whenever the backend is free, the request that has waited longest is answered, together with others that wait and
    are to be answered by the same settings. Nothing waits for others to come.

    Args:
        backend: What answers.
        batch_size: Most requests to answer together; one that answers one after the other anyway gets one.
        queue: Most requests that wait.
    """

    def __init__(self, backend: Backend, *, batch_size: int, queue: int) -> None:
        self._backend, self._queue = backend, queue
        self._batch_size = batch_size if backend.batches else 1
        self._waiting: deque[QueuedRequest] = deque()
        self._running: list[QueuedRequest] = []
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="egm-server", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive() and not self._ending

    def check_room(self) -> None:
        """Refuse what could not wait.

        Raises:
            HttpError: With 429 if too many requests wait, with 503 if the server is ending.
        """
        if self._ending:
            raise _ENDING
        if len(self._waiting) >= self._queue:
            said = f"{self._queue} requests wait already, and that is the limit: try later"
            raise HttpError(429, said, headers=RETRY_AFTER)

    def submit(self, job: QueuedRequest) -> None:
        """Let a job wait for its turn.

        Raises:
            HttpError: As `check_room` raises.
        """
        job.meanwhile = self._serve_calls
        with self._changed:
            self.check_room()
            self._waiting.append(job)
            self._changed.notify()

    def give_up(self, job: QueuedRequest) -> None:
        """Take a job back: it is not begun, or ends at its next token, and nothing is told of it any more."""
        with self._changed:
            job.given_up = True
            if job in self._waiting:
                self._waiting.remove(job)

    def call(self, function: Callable[[], R]) -> Future[R]:
        """Call a function in the backend's thread, between two tokens: tokenizers are not made for several threads."""
        future: Future[R] = Future()
        with self._changed:
            if self._ending:
                raise _ENDING
            self._calls.append((function, future))
            self._changed.notify()
        return future

    def stop(self) -> None:
        """Give up all that waits and runs; the thread ends."""
        with self._changed:
            self._ending = True
            jobs = [*self._waiting, *self._running]
            self._waiting.clear()
            self._changed.notify()
        for job in jobs:
            job.fail(_ENDING)

    def close(self, seconds: float) -> None:
        """Stop, and wait for the thread so long at most."""
        self.stop()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._calls or self._ending)
                self._running = self._next_batch()
            self._serve_calls()
            if self._running:
                self._answer(self._running)
            with self._changed:
                self._running = []
                if self._ending and not self._calls:
                    return

    def _next_batch(self) -> list[QueuedRequest]:
        if not self._waiting:
            return []
        settings = self._waiting[0].settings
        batch = [job for job in self._waiting if job.settings == settings][: self._batch_size]
        for job in batch:
            self._waiting.remove(job)
        return batch

    def _serve_calls(self) -> None:
        while self._calls:
            function, future = self._calls.popleft()
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

    def _answer(self, jobs: Sequence[QueuedRequest]) -> None:
        asked = [job for job in jobs if not job.given_up]
        if not asked:
            return
        try:
            replies = self._backend.generate([job.request for job in asked], asked[0].settings)
        except Exception as error:
            if not isinstance(error, BackendError):
                log.exception("the backend failed")
            for job in asked:
                # One that does not fit must not take its neighbours with it; what has begun cannot begin anew.
                if len(asked) > 1 and not job.begun:
                    self._answer([job])
                else:
                    job.fail(_failure(error))
            return
        for job, reply in zip(asked, replies, strict=True):
            job.end(reply)


def _failure(error: Exception) -> HttpError:
    if isinstance(error, RequestError):
        return HttpError(400, str(error))
    if isinstance(error, BackendError):
        return HttpError(500, str(error))
    return HttpError(500, f"the backend failed: {type(error).__name__}")
