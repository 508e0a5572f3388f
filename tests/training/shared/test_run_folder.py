"""Run folders, those of an earlier version among them: runs of 955c9f8, ended with step 2 of 4."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from egm.errors import RecipeError
from egm.models import embedded_path
from egm.training.grpo.recipe import GRPORecipe
from egm.training.grpo.rollouts import write_page
from egm.training.recipe import Section, dump_recipe, load_recipe
from egm.training.sft.recipe import SFTRecipe
from egm.training.sft.run import run_sft
from egm.training.shared.checkpoints import checkpoints_in, damage, prune
from egm.training.shared.processes import check_precision
from egm.training.shared.run_folder import add_facts, check_free, has_checkpoint, last_checkpoint, start_run, trained

WRITTEN = Path(__file__).parents[2] / "fixtures" / "written_by_955c9f8"


def copied(name: str, tmp_path: Path) -> tuple[SFTRecipe, Path]:
    folder = shutil.copytree(WRITTEN / name, tmp_path / name)
    return load_recipe(SFTRecipe, folder / "recipe.yaml"), folder


@pytest.mark.parametrize(("stage", "kind"), [("sft", SFTRecipe), ("grpo", GRPORecipe)])
def test_a_run_of_an_earlier_version_goes_on(stage: str, kind: type[Section]) -> None:
    folder = WRITTEN / stage
    recipe = load_recipe(kind, folder / "recipe.yaml")
    written = (folder / "recipe.yaml").read_text().splitlines()
    # What is written now holds what was written then; keys that have come since have their defaults.
    assert [line for line in dump_recipe(recipe).splitlines() if line in written] == written
    assert last_checkpoint(recipe, folder) == folder / "checkpoints" / "checkpoint-2"
    assert has_checkpoint(folder)
    assert trained(folder) is None
    with pytest.raises(RecipeError, match="holds a run already"):
        check_free(folder)
    other = load_recipe(kind, folder / "recipe.yaml", ["optim.steps=3", "run.workers=7"])  # workers may differ
    with pytest.raises(RecipeError, match=r"differs from this recipe in optim\.steps: resume with the same one"):
        last_checkpoint(other, folder)


def test_rollouts_of_an_earlier_version_are_shown(tmp_path: Path) -> None:
    page = write_page(WRITTEN / "grpo" / "rollouts", tmp_path / "page.html").read_text()
    assert "<p>2 of 2 groups." in page
    assert page.count("<img") == 2
    assert page.count("<b>advantage") == 8


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe, folder = copied("sft", tmp_path)
    half = folder / "checkpoints" / "checkpoint-3"
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_step": 3,')
    assert last_checkpoint(recipe, folder).name == "checkpoint-2"
    assert caplog.messages == [f"{half} has no trainer_state.json that can be read: going on from checkpoint-2"]
    start_run(recipe, tmp_path / "new", seed=recipe.run.seed)
    assert dump_recipe(recipe) == (tmp_path / "new" / "recipe.yaml").read_text()
    with pytest.raises(RecipeError, match="nothing to resume"):
        last_checkpoint(recipe, tmp_path / "new")


def test_the_command_is_kept_without_passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["egm", "grpo", "--set", "run.report_to=http://me:secret@host:1"])
    recipe, _ = copied("sft", tmp_path)
    start_run(recipe, tmp_path / "new", seed=0)
    facts = json.loads((tmp_path / "new" / "run.json").read_text())
    assert facts["command"] == ["egm", "grpo", "--set", "run.report_to=http://host:1"]


@pytest.mark.parametrize("change", ["other", "a longer row"])
def test_a_run_does_not_go_on_with_other_rows(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "run"
    rows = tmp_path / "rows.jsonl"
    rows.write_text("a row\n")
    recipe = load_recipe(SFTRecipe, WRITTEN / "sft" / "recipe.yaml", [f"data.train={rows}"])
    start_run(recipe, folder, seed=recipe.run.seed)
    shutil.copytree(WRITTEN / "sft" / "checkpoints", folder / "checkpoints")
    assert last_checkpoint(recipe, folder).name == "checkpoint-2"
    rows.write_text(f"{change}\n")
    with pytest.raises(RecipeError, match=r"rows\.jsonl changed since .* was started: resume with the data as it was"):
        last_checkpoint(recipe, folder)


FILES = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors"]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("kept", [0.0, 0.25, 0.49])
@pytest.mark.parametrize("name", ["sft", "start"])
def test_weights_that_never_reached_the_disk_are_damaged(tmp_path: Path, kept: float, name: str) -> None:
    _, folder = copied("sft", tmp_path)
    checkpoint = folder / "checkpoints" / "checkpoint-2"
    weights = checkpoint / "model.safetensors"
    if name == "start":
        shutil.copy(WRITTEN / "start" / "model.safetensors", weights)
    assert damage(checkpoint) is None
    content = weights.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    begin += int((len(content) - begin) * kept)
    weights.write_bytes(content[:begin] + bytes(len(content) - begin))
    assert damage(checkpoint) == "has a model.safetensors that is cut off or damaged"


@pytest.mark.parametrize("harm", [Path.unlink, cut, emptied])
@pytest.mark.parametrize("file", FILES)
def test_a_checkpoint_that_lost_a_file_is_refused_by_name(
    file: str, harm: Callable[[Path], None], tmp_path: Path
) -> None:
    recipe, folder = copied("sft", tmp_path)
    last = folder / "checkpoints" / "checkpoint-2"
    harm(last / file)
    what = rf"(lacks {file}|has a {file} that is cut off or damaged)[^;]*: "
    offer = rf"move checkpoint-2 out of {last.parent}, and --resume goes on from checkpoint-1, the sound checkpoint"
    with pytest.raises(RecipeError, match=rf"^{last} {what}{offer} before it$"):
        last_checkpoint(recipe, folder)
    harm(folder / "checkpoints" / "checkpoint-1" / file)
    with pytest.raises(RecipeError, match=rf"^{last} {what}there is no sound checkpoint before it, so start again"):
        last_checkpoint(recipe, folder)
    shutil.rmtree(last)
    assert has_checkpoint(folder)  # so that nobody starts anew over it


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors", "optimizer.pt"])
def test_an_adapter_that_lost_a_file_is_refused_by_name(file: str, tmp_path: Path) -> None:
    recipe, folder = copied("lora", tmp_path)
    cut(folder / "checkpoints" / "checkpoint-2" / file)
    with pytest.raises(RecipeError, match=f"checkpoint-2 has a {file} that is cut off or damaged: there is no sound"):
        last_checkpoint(recipe, folder)


@pytest.mark.parametrize(
    "state",
    [
        *("{}", "[]", "3", "null", '{"global_step": "2", "max_steps": 4, "log_history": []}'),
        *('{"global_step": 4, "max_steps": 4, "log_history": []}', '{"global_step": 2}'),
        '{"global_step": 2, "max_steps": 4, "log_history": [1]}',
    ],
)
def test_a_state_that_is_none_is_refused(state: str, tmp_path: Path) -> None:
    recipe, folder = copied("sft", tmp_path)
    (folder / "checkpoints" / "checkpoint-2" / "trainer_state.json").write_text(state)
    if state == "null":  # as if it were not there
        assert last_checkpoint(recipe, folder).name == "checkpoint-1"
        return
    with pytest.raises(RecipeError, match=r"checkpoint-2 has a trainer_state\.json .*goes on from checkpoint-1"):
        last_checkpoint(recipe, folder)


def written_by(layout: str, folder: Path) -> None:
    """Write the files of a checkpoint, as two processes of a launch do: names and ends, and nothing to train."""
    (folder / "trainer_state.json").write_text('{"global_step": 7, "max_steps": 9, "log_history": []}')
    archives = ["rng_state_0.pth", "rng_state_1.pth", "scheduler.pt"]
    if layout == "fsdp":
        for name in ("pytorch_model_fsdp_0", "optimizer_0"):
            (folder / name).mkdir()
            for file in (".metadata", "__0_0.distcp", "__1_0.distcp"):
                (folder / name / file).write_bytes(b"x")
    elif layout == "fsdp-full":
        archives += ["pytorch_model_fsdp.bin", "optimizer.bin"]
    elif layout == "deepspeed":
        (folder / "global_step7").mkdir()
        (folder / "latest").write_text("global_step7")
        for rank in range(2):
            archives.append(f"global_step7/zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
            archives.append(f"global_step7/bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    elif layout == "shards":
        archives.append("optimizer.pt")
        shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
        weights = {"a": shards[0], "b": shards[1]}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
        for shard in shards:
            shutil.copy(WRITTEN / "start" / "model.safetensors", folder / shard)
    for name in archives:
        torch.save({"a": torch.zeros(2)}, folder / name)


@pytest.mark.parametrize("layout", ["fsdp", "fsdp-full", "deepspeed", "shards"])
def test_every_file_of_a_sharded_checkpoint_is_missed(layout: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "checkpoint-7"
    folder.mkdir(parents=True)
    written_by(layout, folder)
    assert damage(folder) is None
    optional = {"scheduler.pt"} if layout == "deepspeed" else set()  # DeepSpeed may keep its own
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in optional]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        path.unlink()
        assert damage(folder), path
        path.write_bytes(b"")
        assert damage(folder), path
        path.write_bytes(content)
    assert damage(folder) is None


def test_names_that_are_no_checkpoints_are_left_alone(tmp_path: Path) -> None:
    recipe, folder = copied("sft", tmp_path)
    checkpoints = folder / "checkpoints"
    copies = [
        "checkpoint-2-backup",
        "checkpoint-9x",
        "checkpoint-",
        "checkpoint-best",
        "checkpoint-0007",
        "checkpoint-٣",
    ]
    for name in copies:
        shutil.copytree(checkpoints / "checkpoint-1", checkpoints / name)
    (checkpoints / "checkpoint-8").write_text("a file")
    assert last_checkpoint(recipe, folder).name == "checkpoint-2"
    for step in (3, 4):
        shutil.copytree(checkpoints / "checkpoint-2", checkpoints / f"checkpoint-{step}")
    (checkpoints / "checkpoint-3" / "trainer_state.json").unlink()  # a kill cut it off
    prune(folder)
    assert [path.name for path in checkpoints_in(folder)] == ["checkpoint-2", "checkpoint-3", "checkpoint-4"]
    assert {path.name for path in checkpoints.iterdir()} >= {*copies, "checkpoint-8"}
    for path in checkpoints_in(folder):
        shutil.rmtree(path)
    check_free(folder)
    assert not has_checkpoint(folder)


@pytest.mark.parametrize("content", ["", '{"seed": 0,', "[]", "[" * 100_000])
def test_a_damaged_run_file_is_named(content: str, tmp_path: Path) -> None:
    recipe, folder = copied("sft", tmp_path)
    (folder / "run.json").write_text(content)
    for use in (lambda: last_checkpoint(recipe, folder), lambda: add_facts(folder, steps=4)):
        with pytest.raises(RecipeError, match=rf"^{folder / 'run.json'} is cut off or no object of JSON: move it away"):
            use()
    assert trained(folder) is None


def test_another_number_of_processes_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, folder = copied("sft", tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with caplog.at_level(logging.WARNING):
        last_checkpoint(recipe, folder)
    assert "was written by 1 processes, and now there are 2: dropout begins anew" in caplog.text


SHARDING = {"fsdp": "ACCELERATE_USE_FSDP", "fsdp-full": "ACCELERATE_USE_FSDP", "deepspeed": "ACCELERATE_USE_DEEPSPEED"}


@pytest.mark.parametrize("now", ["fsdp", "deepspeed", "shards"])
@pytest.mark.parametrize("before", ["fsdp", "fsdp-full", "deepspeed", "shards"])
def test_a_checkpoint_of_another_way_of_sharding_is_refused(
    before: str, now: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, folder = copied("sft", tmp_path)
    last = folder / "checkpoints" / "checkpoint-7"
    last.mkdir()
    written_by(before, last)
    monkeypatch.setenv("WORLD_SIZE", "2")
    if now in SHARDING:
        monkeypatch.setenv(SHARDING[now], "true")
    if SHARDING.get(before) == SHARDING.get(now):
        assert last_checkpoint(recipe, folder) == last
        return
    with pytest.raises(RecipeError, match=rf"^{last} was written (under|without) \w+, and this launch is "):
        last_checkpoint(recipe, folder)


@pytest.mark.parametrize("layout", ["fsdp", "deepspeed"])
def test_deepspeed_alone_needs_as_many_processes_as_before(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, folder = copied("sft", tmp_path)
    last = folder / "checkpoints" / "checkpoint-7"
    last.mkdir()
    written_by(layout, last)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv(SHARDING[layout], "true")
    if layout == "fsdp":
        assert last_checkpoint(recipe, folder) == last
        assert "was written by 2 processes, and now there are 4: dropout begins anew" in caplog.text
        return
    with pytest.raises(RecipeError, match=r"by 2 processes, and now there are 4: .* resume with --num_processes 2$"):
        last_checkpoint(recipe, folder)


def test_the_launcher_does_not_choose_another_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    check_precision(bf16=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    check_precision(bf16=True)
    with pytest.raises(RecipeError, match=r"computes in bf16, and this run would not: launch with --mixed"):
        check_precision(bf16=False)


@pytest.mark.parametrize("file", ["optimizer.pt", "model.safetensors"])
def test_a_checkpoint_of_another_model_is_refused_in_one_line(file: str, tmp_path: Path) -> None:
    """Whole files that the library cannot load, a pickle that would run code among them."""

    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    recipe, folder = copied("sft", tmp_path)
    path = folder / "checkpoints" / "checkpoint-2" / file
    if file == "model.safetensors":
        shutil.copy(embedded_path() / file, path)
    else:
        torch.save(Hostile(), path)
    shutil.copytree(WRITTEN / "start", tmp_path / "start")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with pytest.raises(RecipeError, match=r"checkpoint-2 cannot be loaded \(.*goes on from checkpoint-1") as caught:
            run_sft(recipe, folder, resume=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
