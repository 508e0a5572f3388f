"""The worker processes of a data loader: how they begin, and what their errors say."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from collections.abc import Callable
from functools import cache
from typing import Any

from egm.errors import EgmError


def ignore_signals(worker: int, then: Callable[[int], None] | None = None) -> None:
    """Let a worker outlive a SIGTERM or Ctrl-C that is sent to all processes of a run: a `worker_init_fn`.

    `timeout`, job schedulers and terminals send it so. The trainer still needs the worker for the step that it
    finishes. The trainer's process calls `end_workers_at_exit`, for a worker does not end by itself then.

    Args:
        worker: Number of the worker.
        then: Another `worker_init_fn` to call.
    """
    if then is not None:
        then(worker)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@cache
def end_workers_at_exit() -> None:
    """Let this process end its workers as it ends: a worker that ignores SIGTERM would be waited for without end.

    Python ends daemons by SIGTERM and waits for them, where a loader is still referred to, as by a traceback. What is
    registered last is called first, so this comes before it.
    """
    atexit.register(_kill_workers)


def _kill_workers() -> None:
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def end_workers(iterator: Any) -> None:
    """End the workers of a data loader's iterator, as it does itself when it is no longer referred to.

    Left to a garbage collection that finds the iterator in a cycle, its queues are closed before the word to end is put
    there: each worker is waited for in vain, and lives on, for it ignores the SIGTERM that follows.
    """
    if iterator is not None and hasattr(iterator, "_workers"):  # one without workers has none to end
        iterator._shutdown_workers()


def without_traceback(error: EgmError) -> EgmError:
    """Make the error that a worker raised from the one that the loader raises in its place.

    The loader's has the worker's whole traceback in its text, of which the last line is ours.
    """
    last_line = str(error).strip().splitlines()[-1]
    return type(error)(last_line.partition("Error: ")[2] or str(error))
