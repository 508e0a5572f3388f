"""A reproduction as a process of its own, killed between and inside stages: nothing is trained or asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from egm.cli import app
from egm.journal import read_journal
from egm.training.shared.checkpoints import is_whole

from .conftest import Write

pytestmark = pytest.mark.usefixtures("warm_start")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


TOY = Path(__file__).parents[2] / "recipes" / "reproduce-toy.yaml"
SMALLER = [  # one step more, so that a kill can fall between two, and less to ask
    "defaults.sft.optim.steps=3",
    "defaults.sft.run.save_every=1",
    "defaults.grpo.rollout.max_new_tokens=4",
    "evaluate={splits: [synthref/val], scenes: 1, batch_size: 4, max_new_tokens: 4}",
    "latency={requests: 2, warmup: 0, batch_size: 2, batches: 1}",
]


def kill_when(command: list[str], there: Callable[[], bool]) -> None:
    """Kill `egm reproduce` itself, and nothing that it started, at a moment."""
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 240
        while not there():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)


def steps(train: Path) -> list[int]:
    entries: list[dict[str, Any]] = [json.loads(line) for line in (train / "log.jsonl").read_text().splitlines()]
    return [entry["step"] for entry in entries if "loss" in entry]


@pytest.mark.integration  # as long as all other tests of its room together
def test_killed_it_goes_on_and_reports_what_is_complete(tmp_path: Path) -> None:
    out, arms = tmp_path / "out", ("tiny-s-thinking", "tiny-s-grpo")
    thinking, reinforced = (out / "arms" / arm for arm in arms)
    command = [sys.executable, "-m", "egm.cli", "reproduce", str(TOY), "--out", str(out), "--parallel", "2"]
    command += [word for arm in arms for word in ("--only", arm)]
    command += [word for setting in SMALLER for word in ("--set", setting)]
    checkpoint = thinking / "train" / "checkpoints" / "checkpoint-1"
    kill_when(command, lambda: is_whole(checkpoint))  # inside a training
    assert not (thinking / "train.json").exists()
    kill_when(command, (thinking / "train.json").exists)  # between two stages
    trained = (thinking / "train.json").read_bytes(), (thinking / "train.log").read_bytes()
    assert steps(thinking / "train") == [1, 2, 3]

    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "tiny-s-thinking train: begun" not in ended.stderr
    assert "tiny-s-grpo train: done in" in ended.stderr
    assert ((thinking / "train.json").read_bytes(), (thinking / "train.log").read_bytes()) == trained
    assert steps(thinking / "train") == [1, 2, 3]
    assert steps(reinforced / "train") == [1, 2]
    for arm in (thinking, reinforced):
        header, records = read_journal(arm / "evaluate")
        assert len(records) == header.datasets["synthref/val"]["n"]
        lines = (arm / "evaluate" / "journal.jsonl").read_text().splitlines()
        assert len(lines) == 1 + len(records)
    timed = json.loads((out / "latency.json").read_text())["arms"]
    assert timed.keys() == set(arms)
    assert [len(row["seconds"]) for row in (timed["tiny-s-thinking"]["alone"], timed["tiny-s-thinking"]["load"])] == [
        2,
        2,
    ]
    assert timed["tiny-s-thinking"]["weights"] == read_journal(thinking / "evaluate")[0].engine["weights"]
    page = (out / "report" / "report.md").read_text()
    assert "**Incomplete.** tiny-s-direct: not trained; tiny-m-direct: not trained." in page
    assert "tiny-s-grpo minus tiny-s-thinking" in page

    again = CliRunner().invoke(app, command[3:])
    assert again.exit_code == 0
    assert "begun" not in again.output  # nothing was left to do


def test_an_arm_that_fails_is_told_with_its_log_and_exit_code_1(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "egm.cli", "reproduce", str(write(defaults__sft__optim__batch_size=3))]
    command += ["--out", str(out), "--only", "thinking", "--only", "reinforced"]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert errors[0].startswith("error: thinking train: exit code 2: optim.batch_size 3 must be a multiple of 2")
    assert str(out / "arms" / "thinking" / "train.log") in errors[0]
    assert "error: reinforced train: not begun, as thinking train failed" in errors
    assert "Traceback" not in ended.stderr
    assert not (out / "report").exists()
