"""An engine as a process: begun behind its supervisor, its log read, ended with all that it has begun."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from egm.backends.openai.key import without_key
from egm.serve.supervisor import GRACE
from egm.serve.table import troubles
from egm.terminal import printable

_TAIL: Final = 256 * 2**10
_LINE: Final = 240
_MORE = 30.0  # seconds for the supervisor to kill an engine and see it gone
_SAID = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt)\b.*|.*\b(?:error|ERROR|Error|fatal|FATAL):? .*")


class EngineProcess:
    """An engine, and what stands between it and this process.

    Args:
        command: The engine's command line.
        variables: Its environment.
        log: File that its output goes to.
        key: The server's key, which is not shown.
        grace: Seconds between asking it to end and killing what is left of it.

    Raises:
        OSError: If the log cannot be written.
    """

    def __init__(
        self, command: Sequence[str], variables: Mapping[str, str], log: Path, *, key: str = "", grace: float = GRACE
    ) -> None:
        self.log, self._key, self._patience = log, key, grace + _MORE
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)  # an engine may write its key there
        try:
            self._from = os.fstat(descriptor).st_size
            self._supervisor = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "egm.serve.supervisor", str(grace), *command],
                stdin=subprocess.PIPE,
                stdout=descriptor,
                stderr=descriptor,
                env=dict(variables),
                start_new_session=True,  # Ctrl-C is for this process, which ends the engine
            )
        finally:
            os.close(descriptor)

    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._supervisor.poll()

    def wait(self, seconds: float) -> int | None:
        """Wait until it has ended, so many seconds at most; its exit code, None if it runs on."""
        try:
            return self._supervisor.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def last_line(self) -> str:
        """What it wrote last, for somebody who waits."""
        lines = self._lines()
        return self._shown(lines[-1]) if lines else ""

    def why(self) -> str:
        """Say in one line why it ended: what its log says of it, and what to do."""
        lines, code = self._lines(), self.code()
        how = "ended" if code is None else f"ended with exit code {code}"
        if code is not None and code > 128:
            with suppress(ValueError):
                how = f"was ended by {signal.Signals(code - 128).name}"
        for says, advice in troubles():
            if found := next((line for line in lines if re.search(says, line)), None):
                return f"{how}: {self._shown(found)}: {advice} (log: {self.log})"
        said = next((line for line in reversed(lines) if _SAID.match(line.strip())), lines[-1] if lines else "")
        return f"{how}: {self._shown(said) or 'it said nothing'} (log: {self.log})"

    def stop(self) -> None:
        """End it and all that it has begun; interrupted while that takes its time, it is killed at once."""
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.close()
        try:
            self._supervisor.wait(self._patience)
        except subprocess.TimeoutExpired:
            self._kill()
        except BaseException:
            self._supervisor.send_signal(signal.SIGTERM)  # a second time, which kills
            if self.wait(self._patience) is None:
                self._kill()
            raise

    def _kill(self) -> None:
        self._supervisor.kill()
        self._supervisor.wait()

    def _lines(self) -> list[str]:
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._from, size - _TAIL))
            text = file.read().decode("utf-8", "replace").replace("\r", "\n")
        return [line for line in text.splitlines() if line.strip()]

    def _shown(self, line: str) -> str:
        return printable(without_key(line, self._key))[:_LINE].rstrip()
