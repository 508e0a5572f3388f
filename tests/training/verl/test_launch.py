"""A trainer as a process of its own: followed, ended, and what its last words mean."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from egm.errors import EgmError
from egm.training.verl.launch import explain_end, job_command, run_trainer, trainer_command


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_it_is_looked_at_while_it_runs_and_at_the_end(tmp_path: Path) -> None:
    """The trainer ends once it has been looked at."""
    flag = tmp_path / "looked"
    looks: list[bool] = []

    def look() -> None:
        looks.append(flag.exists())
        flag.touch()

    waits = (
        f"import os, time\nwhile not os.path.exists({str(flag)!r}): time.sleep(0.01)\nprint(os.environ['RAY_ADDRESS'])"
    )
    assert run_trainer(python(waits), tmp_path, address="local", look=look)
    assert looks[0] is False
    assert looks[-1] is True
    assert (tmp_path / "verl.log").read_text() == "local\n"


def test_a_failure_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EgmError, match=r"^verl ended: ValueError: no such thing; no checkpoint was written yet: "):
        run_trainer(python("raise ValueError('no such thing')"), tmp_path, address="local", look=lambda: None)
    assert "Traceback" in (tmp_path / "verl.log").read_text()


def test_last_words_of_an_earlier_start_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "verl.log").write_text("CUDA out of memory\n")
    with pytest.raises(EgmError, match=r"^verl ended: exit code 3; "):
        run_trainer(python("raise SystemExit(3)"), tmp_path, address="local", look=lambda: None)


def test_sigterm_ends_it_and_what_it_started(tmp_path: Path) -> None:
    """The child of a trainer that hears neither signal outlives it, as a raylet does."""
    child = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    code = (
        f"import subprocess, sys, pathlib, time\nchild = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"pathlib.Path({str(tmp_path / 'number')!r}).write_text(str(child.pid))\ntime.sleep(600)"
    )

    def look() -> None:
        if (tmp_path / "number").exists() and (tmp_path / "number").read_text():
            os.kill(os.getpid(), signal.SIGTERM)

    assert threading.current_thread() is threading.main_thread()
    assert run_trainer(python(code), tmp_path, address="local", look=_once(look)) is False
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", (tmp_path / "number").read_text()], capture_output=True, text=True, check=False
    )
    assert state.stdout.strip() in ("", "Z", "Z+")


def _once(look):  # type: ignore[no-untyped-def]
    """Look until it has raised, as the last look comes after the end."""
    done: list[bool] = []

    def looking() -> None:
        if not done:
            try:
                look()
            except KeyboardInterrupt:
                done.append(True)
                raise

    return looking


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "(TaskRunner pid=3) ValueError: Total available GPUs 0.0 is less than total desired GPUs 8",
            "too few free GPUs",
        ),
        ("ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.", "a worker was lost"),
        ("ray.exceptions.NodeDiedError: Task failed due to the node dying.", "a worker was lost"),
        ("ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.", "a node is out of"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.", "a GPU is out of memory"),
        ("OSError: [Errno 98] Address already in use", "a port is taken"),
        (
            "ValueError: Ray component worker_ports is trying to use a port number 16379 that is used by",
            "a port is taken",
        ),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ModuleNotFoundError: No module named 'flash_attn'", "a package is missing on a worker .*flash_attn"),
        ("\x1b[36m(WorkerDict pid=7)\x1b[0m KeyError: 'pixels'", "KeyError: 'pixels'"),
        ("", "exit code 1"),
    ],
)
def test_last_words(tmp_path: Path, words: str, says: str) -> None:
    assert "\n" not in explain_end(f"one\n{words}\ntwo", 1, tmp_path)
    assert re.search(f"^verl ended: .*{says}", explain_end(f"one\n{words}\ntwo", 1, tmp_path))


def test_what_is_kept_is_said(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "global_step_7" / "actor").mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("7")
    lost = explain_end("ray.exceptions.NodeDiedError: the node died", 1, tmp_path)
    assert lost.startswith(
        "verl ended: a worker was lost (NodeDiedError); checkpoint global_step_7 is kept: go on with"
    )
    assert "ray status and dmesg tell" in lost


def test_commands() -> None:
    assert trainer_command(Path("/r"), ["trainer.test_freq=5"])[1:] == [
        *("-m", "verl.trainer.main_ppo", "--config-path", "/r", "--config-name", "verl", "trainer.test_freq=5")
    ]
    command = job_command(
        "http://h:8265",
        Path("/a/r.yaml"),
        Path("/a b"),
        flags={"--resume": True, "--absolute": False},
        values={"--out": Path("/r"), "--gpus": None, "--nodes": 2},
        lists={"--set": ["optim.steps=3", "run.seed=1"], "--verl": []},
    )
    assert command[command.index("--") + 1 :][:2] == ["env", "--chdir=/a b"]
    assert command[command.index("verl") + 1 :] == [
        *("/a/r.yaml", "--resume", "--out", "/r", "--nodes", "2"),
        *("--set", "optim.steps=3", "--set", "run.seed=1", "--cluster", "auto"),
    ]
    assert json.dumps(command).count("submit") == 1
