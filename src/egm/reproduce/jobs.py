"""Jobs: processes that follow each other, so many at once, each with its own log and its own GPUs."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from egm.errors import EgmError
from egm.reproduce.child import PARENT
from egm.reproduce.folder import ArmFolder
from egm.reproduce.progress import Progress

_POLL: Final = 0.1
_LEAST: Final = 20.0  # seconds that are worth beginning something in
_PATIENCE: Final = 120.0  # seconds for a step and a checkpoint
_TAIL: Final = 12


class CannotBeginError(EgmError):
    """What a job needs is not there: it has failed, and those that do not come after it go on."""


@dataclass(frozen=True)
class Job:
    """A process to run.

    Attributes:
        name: What to call it, such as `tiny-s-direct train`.
        command: Module and arguments, asked for as it begins: what is to be done depends on what is there. It may
            raise a CannotBeginError.
        log: File that its output is appended to.
        finish: Called with the seconds that it took, once it has ended well.
        after: Names of jobs that must have ended well before it.
        folder: The arm that it works in, if it does.
        count: How far it is: so many of so many, for the progress line; None while unknown.
    """

    name: str
    command: Callable[[], Sequence[str]]
    log: Path
    finish: Callable[[float], None]
    after: tuple[str, ...] = ()
    folder: ArmFolder | None = None
    count: Callable[[], tuple[int, int] | None] = field(default=lambda: None)


@dataclass
class Outcome:
    """What became of jobs that have not ended well.

    Attributes:
        failed: Why jobs failed, or were not begun as others had, by name.
        left: What is left of jobs as time was over, by name.
    """

    failed: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def run_jobs(
    jobs: Sequence[Job], places: Sequence[str | None], progress: Progress, *, deadline: float = math.inf
) -> Outcome:
    """Run jobs, as many at once as there are places, each as soon as those before it have ended well.

    One that fails takes only those that come after it with it. On the way out, whatever the reason, what still runs is
    told to end, and waited for.

    Args:
        jobs: The jobs, in the order of beginning.
        places: For each place what CUDA_VISIBLE_DEVICES is there; None leaves it as it is.
        progress: What shows them.
        deadline: Of `time.monotonic`: then what runs is told to end, and shortly before it nothing more is begun.
    """
    waiting, running, outcome = list(jobs), dict[int, _Running](), Outcome()
    try:
        while waiting or running:
            left = deadline - time.monotonic()
            for place, devices in enumerate(places):
                if left < _LEAST or place in running:
                    continue
                while place not in running and (job := _next(waiting, running, outcome.failed, progress)) is not None:
                    try:
                        running[place] = _Running(job, devices, progress)
                    except CannotBeginError as error:
                        outcome.failed[job.name] = str(error)
                        progress.skipped(job.name, str(error))
            if left <= 0:
                for each in running.values():
                    each.stop()
            for place, each in list(running.items()):
                if each.has_ended():
                    del running[place]
                    if (why := each.close()) is not None:
                        (outcome.left if each.stopped else outcome.failed)[each.job.name] = why
            if running:
                time.sleep(_POLL)
            elif left < _LEAST:
                break
    finally:
        for each in running.values():
            each.terminate()
        for each in running.values():
            each.wait()
    outcome.left |= {job.name: "not begun" for job in waiting}
    return outcome


def _next(waiting: list[Job], running: dict[int, _Running], failed: dict[str, str], progress: Progress) -> Job | None:
    under_way = {each.job.name for each in running.values()}
    for job in list(waiting):
        if lost := [name for name in job.after if name in failed]:
            failed[job.name] = f"not begun, as {lost[0]} failed"
            progress.skipped(job.name, failed[job.name])
            waiting.remove(job)
    for job in waiting:
        if not set(job.after) & (under_way | {other.name for other in waiting}):
            waiting.remove(job)
            return job
    return None


class _Running:
    """The process of a job."""

    def __init__(self, job: Job, devices: str | None, progress: Progress) -> None:
        self.job, self._progress, self._stack = job, progress, ExitStack()
        self.stopped = False
        self._end_by = math.inf
        try:
            passed = () if job.folder is None else (self._stack.enter_context(job.folder.locked()),)
            command = [sys.executable, "-m", "egm.reproduce.child", *job.command()]
            job.log.parent.mkdir(parents=True, exist_ok=True)
            log = self._stack.enter_context(job.log.open("ab"))
            self._from = log.seek(0, os.SEEK_END)
            environment = os.environ | {PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
            if devices is not None:
                environment["CUDA_VISIBLE_DEVICES"] = devices
            self._start = time.monotonic()
            self._process = subprocess.Popen(  # noqa: S603 - our own modules
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=passed,  # the arm's lock lasts as long as the child
                start_new_session=True,
            )
        except BaseException:
            self._stack.close()
            raise
        progress.started(job.name, job.log)

    def has_ended(self) -> bool:
        """Whether it has; shows how far it is, if not."""
        if self._process.poll() is not None:
            return True
        if time.monotonic() > self._end_by:
            self._kill_session()
        self._progress.update(self.job.name, self.job.count)
        return False

    def close(self) -> str | None:
        """Note that it has ended, and say why it failed, if it did."""
        self._kill_session()
        self._stack.close()
        code, seconds = self._process.returncode, time.monotonic() - self._start
        if code == 0:
            self.job.finish(round(seconds, 1))
            self._progress.ended(self.job.name, seconds)
            return None
        if self.stopped:
            self._progress.stopped(self.job.name)
            return "begun"
        tail = self._tail()
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        said = next((line for line in reversed(tail) if "rror: " in line or "rror:" in line), tail[-1] if tail else "")
        self._progress.failed(self.job.name, tail)
        return f"{how}: {said.removeprefix('error: ')} (all of it in {self.job.log})"

    def _tail(self) -> list[str]:
        with self.job.log.open("rb") as file:
            file.seek(self._from)
            text = file.read().decode("utf-8", "replace").replace("\r", "\n")
        return [line for line in text.splitlines() if line.strip()][-_TAIL:]

    def stop(self) -> None:
        """Ask it to end, as time is over, and kill it if it does not."""
        if not self.stopped:
            self.stopped, self._end_by = True, time.monotonic() + _PATIENCE
            self.terminate()

    def terminate(self) -> None:
        """Ask it to end: a training finishes its step, and its loaders must live until then."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait until it has ended, and kill it if it does not."""
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._kill_session()
            self._process.wait()
            self._stack.close()

    def _kill_session(self) -> None:
        """Kill whatever it has left of its own session."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


def places_for(device: str, *, parallel: int, gpus: int) -> list[str | None]:
    """Divide the GPUs among jobs.

    Args:
        device: "auto", "cpu" or "cuda".
        parallel: How many jobs at once.
        gpus: How many GPUs each.

    Returns:
        For each place what CUDA_VISIBLE_DEVICES is to be there.

    Raises:
        EgmError: If there are not so many.
    """
    if parallel < 1 or gpus < 1:
        raise EgmError(f"--parallel {parallel} and --gpus {gpus}: give at least 1")
    found = [] if device == "cpu" else _visible()
    if not found:
        if device == "cuda":
            raise EgmError("device cuda: there is no GPU here; set device to cpu, or to auto")
        if gpus > 1:
            raise EgmError(f"--gpus {gpus}: there is no GPU to use; leave it out")
        return [""] * parallel
    if parallel * gpus > len(found):
        raise EgmError(f"--parallel {parallel} x --gpus {gpus} need {parallel * gpus} GPUs, and {len(found)} are here")
    return [",".join(found[place * gpus : (place + 1) * gpus]) for place in range(parallel)]


def _visible() -> list[str]:
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]
