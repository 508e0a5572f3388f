"""A lane: requests to one model, each a future, whether a server answers or a model in this process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeAlias
from weakref import WeakKeyDictionary

from egm.backends.base import Backend, GenerationSettings, Request
from egm.backends.remote import RemoteBackend
from egm.errors import BackendError
from egm.types import Completion

OnLost: TypeAlias = Callable[[tuple[int, int]], bool]
"""Told of the tokens of a try that brought no answer; whether another may be made."""
_TURNS: WeakKeyDictionary[Backend, threading.Lock] = WeakKeyDictionary()


class Lane:
    """Requests to one backend; a context manager that gives up what is under way on the way out.

    A server takes them as they come. A model in this process takes those that wait together, in a thread of the lane's,
    and lanes to the same model take turns.

    Args:
        backend: What answers; it is left open.
        settings: How text is generated.
        batch: Most requests that a model in this process answers together.
    """

    def __init__(self, backend: Backend, settings: GenerationSettings, *, batch: int = 1) -> None:
        self.backend, self.settings, self._batch = backend, settings, batch
        self._waiting: deque[tuple[Request, Future[Completion]]] = deque()
        self._lock, self._turn = threading.Lock(), _TURNS.setdefault(backend, threading.Lock())
        self._worker: ThreadPoolExecutor | None = None

    def submit(self, request: Request, on_lost: OnLost | None = None) -> Future[Completion]:
        """Queue a request; the future raises BackendError where the engine fails.

        Args:
            request: The request.
            on_lost: See `egm.backends.base.Request`.
        """
        request = replace(request, on_lost=on_lost)
        if isinstance(self.backend, RemoteBackend):
            return self.backend.submit(request, self.settings)
        future: Future[Completion] = Future()
        with self._lock:
            self._waiting.append((request, future))
            if self._worker is None:
                self._worker = ThreadPoolExecutor(1, thread_name_prefix="egm-lane")
        self._worker.submit(self._answer)
        return future

    def _answer(self) -> None:
        with self._lock:
            taken = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
        taken = [(request, future) for request, future in taken if future.set_running_or_notify_cancel()]
        self._answer_together(taken)

    def _answer_together(self, taken: list[tuple[Request, Future[Completion]]]) -> None:
        """Answer requests; where a batch fails each is asked alone, so that each fails for itself."""
        if not taken:
            return
        try:
            with self._turn:
                replies = self.backend.generate([request for request, _ in taken], self.settings)
        except BackendError as error:
            if len(taken) == 1:
                taken[0][1].set_exception(error)
                return
            for item in taken:
                self._answer_together([item])
        except BaseException as error:  # of this thread nobody else would hear
            for _, future in taken:
                future.set_exception(error)
        else:
            for (_, future), reply in zip(taken, replies, strict=True):
                future.set_result(reply)

    def close(self) -> None:
        """Give up what waits, and wait for what runs."""
        if self._worker is not None:
            with self._lock:
                left = [future for _, future in self._waiting]
                self._waiting.clear()
            for future in left:
                future.cancel()
            self._worker.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
