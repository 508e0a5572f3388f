"""A run whose weights DeepSpeed's ZeRO-3 shards over two processes, on CPUs, beside one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from torch.testing import assert_close

from ..training.shallow import shallow_model
from .environments import HERE, ROOT, Python, apart

pytestmark = pytest.mark.integration
CPU = {"DS_ACCELERATOR": "cpu", "DS_BUILD_OPS": "0", "DS_IGNORE_CUDA_DETECTION": "1", "OMP_NUM_THREADS": "1"}
FILE = ROOT / "recipes" / "accelerate" / "zero3-8gpu.yaml"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    wanted = ("deepspeed>=0.19", "setuptools", "wheel")
    return apart(tmp_path_factory.mktemp("deepspeed"), *wanted, left_out=(*HERE, "nvidia-ml-py"), **CPU)


def lines(run: Path) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "loss" in line]


def test_zero3_learns_what_one_process_does_and_goes_on(python: Python, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    content = {
        "model": {"name": str(shallow_model())},
        "data": {"scenes": 40, "phrases": 1},
        "optim": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 0, "precision": "float32"},
        "run": {"log_every": 1, "save_every": 2},
    }
    recipe.write_text(yaml.safe_dump(content))
    egm = ("-m", "egm.cli", "sft", recipe, "--out")
    sharded = (
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        FILE,
        "--num_processes",
        2,
        "--mixed_precision",
        "no",
    )
    alone, out, again = (tmp_path / name for name in ("alone", "out", "again"))
    for command in ((*egm, alone), (*sharded, *egm, out)):
        ended = python(*command)
        assert ended.returncode == 0, ended.stderr[-4000:]
    for name in ("loss", "mean_token_accuracy", "grad_norm"):
        assert [each[name] for each in lines(out)] == pytest.approx([each[name] for each in lines(alone)], rel=1e-3)
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (out, alone))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert_close(weight.float(), theirs[name].float(), atol=2e-3, rtol=2e-2)

    shutil.copytree(out, again)
    for left in ("model", "checkpoints/checkpoint-4"):  # as a kill behind the second step leaves it
        shutil.rmtree(again / left)
    ended = python(*egm, again, "--resume")
    assert ended.returncode == 2
    assert "was written under DeepSpeed, and this launch is without sharding" in ended.stderr.splitlines()[-1]
    ended = python(*sharded, *egm, again, "--resume")
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert [each["loss"] for each in lines(again)] == pytest.approx([each["loss"] for each in lines(out)], rel=1e-4)
