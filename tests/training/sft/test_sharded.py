"""A run whose weights FSDP2 shards, over CPUs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ..shallow import shallow_model

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("warm_start")]
LAUNCH = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
ENVIRONMENT = os.environ | {
    "ACCELERATE_USE_FSDP": "true",
    "CUDA_VISIBLE_DEVICES": "",
    "EGM_DATA": "none",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_VERSION": "2",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


def run(recipe: Path, out: Path, *options: str) -> None:
    script = Path(__file__).parents[1] / "sharding_cpus.py"
    command = [*LAUNCH, str(script), "sft", str(recipe), "--out", str(out), *options]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-8000:]


def test_a_run_that_ended_before_its_model_was_saved_takes_no_step_more(tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    content = {
        "model": {"name": str(shallow_model())},
        "data": {"scenes": 4, "phrases": 1},  # two steps to an epoch: the library would take the second
        "optim": {"steps": 1, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 0},
        "run": {"log_every": 1, "save_every": 1},
    }
    recipe.write_text(yaml.safe_dump(content))
    run(recipe, out)
    assert (out / "checkpoints" / "checkpoint-1" / "pytorch_model_fsdp_0" / ".metadata").is_file()
    weights, log = (out / "model" / "model.safetensors").read_bytes(), (out / "log.jsonl").read_bytes()
    shutil.rmtree(out / "model")
    run(recipe, out, "--resume")
    assert json.loads((out / "run.json").read_text())["steps"] == 1
    assert (out / "model" / "model.safetensors").read_bytes() == weights
    assert (out / "log.jsonl").read_bytes() == log
