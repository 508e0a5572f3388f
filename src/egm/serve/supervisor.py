"""Stands between `egm serve` and an engine, so that no process of the engine is left when either is gone.

`python -m egm.serve.supervisor SECONDS COMMAND...` with a pipe on standard input, whose other end only the process that
starts this one holds: its end is the end of that process, however it came about. The engine's own processes are found
among all descendants, orphans too, which a process group or a session would miss.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from typing import Final

from egm.processes import adopt_orphans, descendants, end_with_parent, send

GRACE: Final = 20.0
"""Seconds between asking an engine to end and killing what is left of it."""
_POLL = 0.05
_KILLED = 10.0  # seconds that a killed process may take to be gone, as one may that waits for a device
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


def supervise(command: list[str], grace: float) -> int:
    """Run a command until it ends, this process is told to end it, or standard input ends.

    A first SIGTERM or SIGINT is passed on to the command, a second kills it.

    Args:
        command: The command.
        grace: Seconds between asking it to end and killing what is left.

    Returns:
        Its exit code, by the shell's convention 128 and the number where a signal ended it.
    """
    adopt_orphans()
    woken, wakes = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    for caught in _SIGNALS:
        signal.signal(caught, lambda *_: None)
    try:
        engine = subprocess.Popen(  # noqa: S603 - what `egm serve` has made
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: end_with_parent(signal.SIGKILL),
        )
    except OSError as error:
        sys.stdout.write(f"error: cannot start {command[0]}: {error.strerror}\n")
        return 127
    selector = selectors.DefaultSelector()
    selector.register(woken, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    deadline: float | None = None  # once it is to end
    while (code := _reaped(engine)) is None:
        asked = list[int]()
        for key, _ in selector.select(None if deadline is None else max(0.0, deadline - time.monotonic())):
            if key.fd == woken:
                asked += [number for number in os.read(woken, 256) if number != signal.SIGCHLD]
            elif not os.read(0, 256):
                selector.unregister(0)
                asked += [signal.SIGTERM] if deadline is None else []
        for number in asked:
            deadline = time.monotonic() + grace if deadline is None else 0.0
            send([engine.pid], number)
        if deadline is not None and time.monotonic() >= deadline:
            _kill_all(engine)
            deadline = time.monotonic() + _KILLED
    _kill_all(engine)
    return code


def _reaped(engine: subprocess.Popen[bytes]) -> int | None:
    """Take leave of all that have ended, adopted ones too; the engine's code, once it is among them."""
    code = None
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if process == 0:
            break
        if process == engine.pid:
            code = os.waitstatus_to_exitcode(status)
            engine.returncode = code = 128 - code if code < 0 else code
    return code


def _kill_all(engine: subprocess.Popen[bytes]) -> None:
    """Kill every descendant, until none is left: some are born while others are killed."""
    until = time.monotonic() + _KILLED
    while time.monotonic() < until:
        left = descendants(os.getpid())
        if engine.returncode is None:
            left.append(engine.pid)
        if not left:
            break
        send(left, signal.SIGKILL)
        if engine.returncode is not None:
            _reaped(engine)
        elif left == [engine.pid]:
            break
        time.sleep(_POLL)
    if sys.platform != "linux":
        _kill_session(engine.pid)


def _kill_session(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[2:], float(sys.argv[1])))
