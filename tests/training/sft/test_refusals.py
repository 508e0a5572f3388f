"""What `egm sft` refuses, in one line and before anything is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from egm.cli import app
from egm.errors import DataError, ModelError, RecipeError
from egm.training.sft.run import run_sft
from egm.training.sft.trainer import GroundingTrainer

from .test_run import TOY, toy


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"optim": {"steps": 1, "batch_size": 3}}, RecipeError, "must be a multiple of 4"),
        ({"data": {"train": "synthref/trian"}}, DataError, "trian"),
        ({"data": {"train": "synthref/calibration"}}, DataError, "synthref/calibration, which is frozen"),
        ({"data": {"train": "none.jsonl"}}, DataError, "no dataset at none.jsonl"),
        ({"model": {"name": "tiny-x", "from_scratch": True}}, ModelError, "tiny-"),
        ({"model": {"name": "8B", "from_scratch": True}}, ModelError, "cannot be built from scratch"),
        ({"model": {"name": "no/such/folder"}}, ModelError, "no/such/folder"),
        ({"eval": {"data": "synthref/vla"}}, DataError, "vla"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        run_sft(toy(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_log_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as where it is not installed
    with pytest.raises(RecipeError, match=r"^run\.report_to wandb: it is not installed; pip install wandb$"):
        run_sft(toy(run={"report_to": "wandb"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["is_fsdp_enabled", "is_deepspeed_enabled"])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, r"optim\.optimizer muon needs whole matrices on each process: set it to adamw under FSDP and DeepSpeed"),
        (
            {"optim": TOY["optim"] | {"optimizer": "adamw"}, "eval": {"data": "synthref/val", "greedy": 1}},
            r"eval\.greedy needs the whole model on each process: set it to 0 under FSDP and DeepSpeed",
        ),
    ],
)
def test_what_needs_whole_weights_is_refused_where_they_are_sharded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, changes: dict[str, Any], says: str
) -> None:
    make = GroundingTrainer.create_accelerator_and_postprocess

    def sharded(self: Any) -> None:
        make(self)
        setattr(self, kind, True)  # as under accelerate launch, without the processes

    monkeypatch.setattr(GroundingTrainer, "create_accelerator_and_postprocess", sharded)
    with pytest.raises(RecipeError, match=f"^{says}$"):
        run_sft(toy(**changes), tmp_path / "run")


def test_the_command_line_names_a_wrong_key(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: {name: tiny-s}\noptim: {steps: 1, batchsize: 2}\n")
    result = CliRunner().invoke(app, ["sft", str(path)])
    assert isinstance(result.exception, RecipeError)
    assert "did you mean 'batch_size'?" in str(result.exception)
