"""Jobs: in order, so many at once, each failure for itself, and nothing left behind."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from egm.errors import EgmError
from egm.processes import Terminated, interruptible
from egm.reproduce.folder import ArmFolder
from egm.reproduce.jobs import Job, places_for, run_jobs
from egm.reproduce.progress import Progress

WORK = """
import os, sys, time
from pathlib import Path
name, said, code, waits = sys.argv[1:5]
print("started", name, os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
Path(f"{name}.pid").write_text(str(os.getpid()))
while waits and not Path(waits).exists():
    time.sleep(0.01)
print(said)
sys.exit(int(code))
"""
Make = Callable[..., Job]


@pytest.fixture
def ended() -> list[str]:
    return []


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: list[str]) -> Make:
    (tmp_path / "work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.chdir(tmp_path)

    def job(
        name: str,
        *after: str,
        says: str = "",
        code: int = 0,
        waits: str = "",
        finish: Callable[[float], None] | None = None,
        folder: ArmFolder | None = None,
    ) -> Job:
        return Job(
            name=name,
            command=lambda: ["work", name, says, str(code), waits],
            log=tmp_path / f"{name}.log",
            finish=finish or (lambda seconds: ended.append(name)),
            after=after,
            folder=folder,
        )

    return job


def shown() -> tuple[Progress, io.StringIO]:
    stream = io.StringIO()
    return Progress(stream), stream


def test_each_begins_when_those_before_it_have_ended(make: Make, ended: list[str], tmp_path: Path) -> None:
    progress, stream = shown()
    with progress:
        # b is named first, but comes after a; c and a run at once, or a would wait for ever.
        outcome = run_jobs([make("b", "a"), make("a", waits="c.pid"), make("c", "elsewhere")], ["0", "1"], progress)
    assert (outcome.failed, outcome.left) == ({}, {})
    assert ended.index("a") < ended.index("b")
    assert sorted(ended) == ["a", "b", "c"]
    assert {(tmp_path / f"{name}.log").read_text().split()[2] for name in "abc"} <= {"0", "1"}
    assert (tmp_path / "a.log").read_text().split()[2] != (tmp_path / "c.log").read_text().split()[2]
    assert "b: done in" in stream.getvalue()


def test_a_failure_takes_only_what_comes_after_it_and_shows_its_log(make: Make, ended: list[str]) -> None:
    progress, stream = shown()
    with progress:
        jobs = [make("a", says="error: out of paper", code=2), make("b", "a"), make("c", "b"), make("d")]
        failed = run_jobs(jobs, [None], progress).failed
    assert ended == ["d"]
    assert failed["a"].startswith("exit code 2: out of paper (all of it in ")
    assert failed["b"] == "not begun, as a failed"
    assert failed["c"] == "not begun, as b failed"
    assert "| error: out of paper" in stream.getvalue()


def test_sigterm_ends_what_runs_and_is_passed_on(make: Make, ended: list[str], tmp_path: Path) -> None:
    progress, _ = shown()

    def stop(_: float) -> None:
        while not (tmp_path / "b.pid").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Terminated), interruptible(), progress:
        run_jobs([make("a", finish=stop), make("b", waits="never")], [None, None], progress)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "b.pid").read_text()), 0)
    assert ended == []


def test_an_arm_in_use_is_refused(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egm.reproduce.folder._PATIENCE", 0.0)
    folder = ArmFolder(tmp_path, "x")
    progress, _ = shown()
    with (
        folder.locked(),
        pytest.raises(EgmError, match="is in use by another process: wait for it, or end it"),
        progress,
    ):
        run_jobs([make("a", folder=ArmFolder(tmp_path, "x"))], [None], progress)
    with progress:
        assert run_jobs([make("a", folder=folder)], [None], progress).failed == {}


def test_places(monkeypatch: pytest.MonkeyPatch) -> None:
    assert places_for("cpu", parallel=2, gpus=1) == ["", ""]
    with pytest.raises(EgmError, match="--parallel 0 and --gpus 1: give at least 1"):
        places_for("cpu", parallel=0, gpus=1)
    with pytest.raises(EgmError, match="--gpus 2: there is no GPU to use"):
        places_for("cpu", parallel=1, gpus=2)
    monkeypatch.setattr("egm.reproduce.jobs._visible", list)
    with pytest.raises(EgmError, match="device cuda: there is no GPU here"):
        places_for("cuda", parallel=1, gpus=1)
    monkeypatch.setattr("egm.reproduce.jobs._visible", lambda: ["4", "5", "6", "7"])  # no such machine here
    assert places_for("auto", parallel=2, gpus=2) == ["4,5", "6,7"]
    assert places_for("cuda", parallel=1, gpus=1) == ["4"]
    with pytest.raises(EgmError, match="need 6 GPUs, and 4 are here"):
        places_for("auto", parallel=3, gpus=2)


def test_when_time_is_over_what_runs_is_told_to_end_and_the_rest_is_left(
    make: Make, ended: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, stream = shown()
    with progress:
        outcome = run_jobs([make("a")], [None], progress, deadline=time.monotonic() + 1)
        assert outcome.left == {"a": "not begun"}  # too late to begin anything
        monkeypatch.setattr("egm.reproduce.jobs._LEAST", 0.0)
        jobs = [make("a", waits="never"), make("b", "a"), make("c", code=1, says="error: c")]
        outcome = run_jobs(jobs, [None, None], progress, deadline=time.monotonic() + 5)
    assert outcome.left == {"a": "begun", "b": "not begun"}
    assert list(outcome.failed) == ["c"]
    assert ended == []
    assert "a: stopped, as time is over" in stream.getvalue()
