"""Runs as processes of their own: two of them learn what one does, and a killed one goes on as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from egm.training.shared.checkpoints import is_whole

from ...families import random_checkpoint

pytestmark = pytest.mark.usefixtures("warm_start")
FAMILIES = ("qwen3_vl", "internvl")
RECIPE: dict[str, Any] = {
    "data": {"scenes": 16, "phrases": 2},
    "optim": {"steps": 3, "batch_size": 8, "learning_rate": 1e-3, "warmup_steps": 1},
    "run": {"log_every": 1, "save_every": 2},
    "eval": {"data": "synthref/val", "every": 3, "samples": 3, "greedy": 2, "max_new_tokens": 4},
}
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "EGM_DATA": "none",
}


def command(tmp_path: Path, out: Path, family: str, *options: str, processes: int = 1, **changes: Any) -> list[str]:
    path = tmp_path / f"{out.name}.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"model": {"name": str(random_checkpoint(family))}} | changes))
    start = [sys.executable, "-m"]
    if processes > 1:
        # accelerate's own launcher starts several processes on CPUs through MPI only; they read the same variables.
        start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    return [*start, "egm.cli", "sft", str(path), "--out", str(out), *options]


def run(arguments: list[str]) -> None:
    result = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]


def log(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    timed = ("runtime", "per_second")
    return [{key: value for key, value in line.items() if not key.endswith(timed)} for line in lines]


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in log(out) if "loss" in line]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, warm_start: object, family: str) -> Path:
    folder = tmp_path_factory.mktemp("launch")
    run(command(folder, folder / "alone", family))
    return folder / "alone"


def test_two_processes_in_two_passes_learn_what_one_does_in_one(alone: Path, tmp_path: Path, family: str) -> None:
    out = tmp_path / "two"
    run(command(tmp_path, out, family, processes=2, optim=RECIPE["optim"] | {"accumulation": 2}))
    assert json.loads((out / "run.json").read_text())["processes"] == 2
    assert losses(out) == pytest.approx(losses(alone), abs=2e-4)
    accuracies = [[line["mean_token_accuracy"] for line in log(folder) if "loss" in line] for folder in (out, alone)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1e-6)  # over all processes and passes, as the loss is
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (out, alone))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        # bfloat16 files of float32 weights; AdamW's first steps magnify differences in the order of sums.
        torch.testing.assert_close(weight.float(), theirs[name].float(), atol=2e-3, rtol=2e-2)
    evaluations = [next(line for line in log(folder) if "eval_loss" in line) for folder in (out, alone)]
    assert evaluations[0]["eval_loss"] == pytest.approx(evaluations[1]["eval_loss"], abs=1e-3)
    assert {path.name for path in out.iterdir()} == {path.name for path in alone.iterdir()}  # one of them wrote it


def test_a_killed_run_goes_on_as_if_nothing_had_been(alone: Path, tmp_path: Path, family: str) -> None:
    out = tmp_path / "killed"
    process = subprocess.Popen(command(tmp_path, out, family), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    while process.poll() is None and not is_whole(out / "checkpoints" / "checkpoint-2"):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "model").exists()
    half = out / "checkpoints" / "checkpoint-3"  # as a kill in the middle of saving leaves it
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_step": 3,')
    run(command(tmp_path, out, family, "--resume"))
    assert losses(out) == losses(alone)
    assert [line["step"] for line in log(out)] == [line["step"] for line in log(alone)]
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (out, alone))
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
