"""Checkpoints as verl lays them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from egm.errors import ModelError
from egm.models import embedded_path
from egm.publish.export import export_model
from egm.publish.verl_run import find_exported, last_global_step, world_size


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two checkpoints, the last of which holds egm-tiny."""
    for step in (10, 20):
        actor = tmp_path / "run" / "checkpoints" / f"global_step_{step}" / "actor"
        actor.mkdir(parents=True)
        (actor / "model_world_size_2_rank_0.pt").touch()
        (actor / "huggingface").mkdir()
        (actor / "huggingface" / "config.json").write_text("{}")
    shutil.copytree(embedded_path(), actor / "huggingface", dirs_exist_ok=True)
    (tmp_path / "run" / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("20")
    (tmp_path / "run" / "recipe.yaml").write_text("stage: grpo\n")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "place", [".", "checkpoints", "checkpoints/global_step_20", "checkpoints/global_step_20/actor"]
)
def test_the_last_model_is_found(run: Path, place: str) -> None:
    found = find_exported(run / place)
    assert found is not None
    assert found.samefile(run / "checkpoints" / "global_step_20" / "actor" / "huggingface")


def test_a_run_is_exported(run: Path) -> None:
    out = export_model(run, run / "export", dtype="float32")
    assert (out / "model.safetensors").stat().st_size > 1e6
    assert "stage: grpo" in (out / "README.md").read_text()


def test_other_folders_are_not_verls(tmp_path: Path) -> None:
    assert find_exported(tmp_path) is None
    assert find_exported(embedded_path()) is None
    assert last_global_step(tmp_path) is None


def test_shards_alone_are_merged_first(run: Path) -> None:
    with pytest.raises(ModelError, match=r"in pickled shards alone.*python -m verl.model_merger merge --backend fsdp"):
        find_exported(run / "checkpoints" / "global_step_10")
    assert world_size(run / "checkpoints" / "global_step_10" / "actor") == 2


@pytest.mark.parametrize("says", ["30", "x", ""])
def test_a_checkpoint_that_is_not_there(run: Path, says: str) -> None:
    (run / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(says)
    assert last_global_step(run) is None
    with pytest.raises(ModelError, match="holds no whole checkpoint of verl's"):
        find_exported(run)


def test_a_checkpoint_that_was_cut_off(run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "global_step_20" / "actor")
    (run / "checkpoints" / "global_step_20" / "actor").mkdir()
    with pytest.raises(ModelError, match="its saving was cut off"):
        find_exported(run)
