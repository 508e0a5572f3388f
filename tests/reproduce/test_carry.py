"""A reproduction carried to another machine: what is needed arrives, in small files, and nothing is done twice."""

from __future__ import annotations

import io
import json
import os
import runpy
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from egm.errors import EgmError
from egm.reproduce.folder import ArmFolder, settle
from egm.reproduce.latency import FILE_NAME
from egm.reproduce.recipe import ReproduceRecipe
from egm.reproduce.run import ReproductionPlan, jobs_left, make_plan
from egm.training.recipe import load_recipe

from .conftest import Write

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "carry.py"
TOY = Path(__file__).parents[2] / "recipes" / "reproduce-toy.yaml"
NUMBERS = 3000
Packs = Callable[..., list[str]]


@pytest.fixture(scope="module")
def carry() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def pack(carry: dict[str, Any]) -> Packs:
    limits = {"most_bytes": 10_000, "most_files": 8, "most_altogether": 80_000}

    def packed(out: Path, parts: Path, **changed: int) -> list[str]:
        missed: list[str] = carry["pack"](out, parts, **limits | changed)
        return missed

    return packed


def weights(path: Path, seed: int) -> torch.Tensor:
    """Write some that cannot be made smaller."""
    path.parent.mkdir(parents=True)
    numbers = torch.randn(NUMBERS, generator=torch.Generator().manual_seed(seed))
    save_file({"a": numbers}, path)
    return numbers


def train(folder: ArmFolder, seed: int, *, evaluated: bool) -> torch.Tensor:
    """Make a folder as a finished training leaves it."""
    made = weights(folder.train / "model" / "model.safetensors", seed)
    (folder.train / "run.json").write_text('{"steps": 3}')
    (folder.train / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    folder.finish("train", {}, 1.0)
    folder.evaluate.mkdir()
    (folder.evaluate / "journal.jsonl").write_text("{}\n")
    if evaluated:
        folder.finish("evaluate", {}, 1.0)
    return made


@pytest.fixture
def plan(write: Write, tmp_path: Path) -> ReproductionPlan:
    """direct is done and timed; so is thinking, of which reinforced is to come; large not evaluated, unboxed begun."""
    recipe, out = load_recipe(ReproduceRecipe, write()), tmp_path / "out"
    plan = make_plan(recipe, out, ablations=["unboxed"])
    settle(out, recipe, plan.arms)
    for seed, name in enumerate(("direct", "thinking", "large")):
        train(ArmFolder(out, name), seed, evaluated=name != "large")
    timing = {"about": {}, "weights": "", "alone": {}, "load": {}}
    (out / FILE_NAME).write_text(json.dumps({"arms": dict.fromkeys(("direct", "thinking"), timing)}))
    for step in (1, 2):
        checkpoint = ArmFolder(out, "unboxed").train / "checkpoints" / f"checkpoint-{step}"
        weights(checkpoint / "model.safetensors", step)
        (checkpoint / "trainer_state.json").write_text("{}")
    return plan


def todo(plan: ReproductionPlan, out: Path) -> list[str]:
    return [job.name for job in jobs_left(make_plan(plan.recipe, out, ablations=["unboxed"]))]


def test_what_is_needed_arrives_and_the_same_is_left_to_do(
    plan: ReproductionPlan, pack: Packs, carry: dict[str, Any], tmp_path: Path
) -> None:
    parts, there = tmp_path / "parts", tmp_path / "there"
    assert pack(plan.out, parts) == []
    files = sorted(parts.iterdir())
    assert 1 < len(files) <= 8
    assert max(file.stat().st_size for file in files) <= 10_000
    carry["unpack"](parts, there)
    left = todo(plan, plan.out)
    assert todo(plan, there) == left == ["large evaluate", "reinforced train", "reinforced evaluate", *left[3:]]
    for seed, name in ((1, "thinking"), (2, "large")):
        model = ArmFolder(there, name).model
        assert model is not None
        numbers = torch.randn(NUMBERS, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(load_file(model / "model.safetensors")["a"], numbers.bfloat16())
    assert ArmFolder(there, "direct").model is None  # nothing is left that needs it
    for name, journal in (("direct", True), ("thinking", True), ("large", False)):
        assert (ArmFolder(there, name).evaluate / "journal.jsonl").exists() is journal
        assert (ArmFolder(there, name).train / "log.jsonl").exists()
    checkpoints = ArmFolder(there, "unboxed").train / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-2"]
    newest = checkpoints / "checkpoint-2" / "model.safetensors"
    assert newest.read_bytes() == (plan.out / newest.relative_to(there)).read_bytes()  # of which nothing is rounded
    with pytest.raises(EgmError, match="is not empty"):
        carry["unpack"](parts, there)
    with pytest.raises(EgmError, match="is not empty"):
        pack(plan.out, parts)


def test_what_does_not_fit_is_named_and_trained_again(
    plan: ReproductionPlan, pack: Packs, carry: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pack(plan.out, tmp_path / "a", most_altogether=10_000) == []  # the model that reinforced needs, and no other
    assert "LEFT BEHIND: large: model, not evaluated" in capsys.readouterr().out
    carry["unpack"](tmp_path / "a", tmp_path / "there")
    assert "large train" in todo(plan, tmp_path / "there")
    assert "thinking train" not in todo(plan, tmp_path / "there")
    assert pack(plan.out, tmp_path / "b", most_altogether=3_000) == ["reinforced cannot go on"]


def test_parts_are_checked(plan: ReproductionPlan, pack: Packs, carry: dict[str, Any], tmp_path: Path) -> None:
    unpack = carry["unpack"]
    pack(plan.out, tmp_path / "parts")
    first, *_, last = sorted((tmp_path / "parts").iterdir())
    content = first.read_bytes()
    first.write_bytes(content[:5000] + bytes(100) + content[5100:])
    with pytest.raises(EgmError, match="missing or damaged"):
        unpack(tmp_path / "parts", tmp_path / "x")
    first.write_bytes(content)
    last.unlink()
    with pytest.raises(EgmError, match="missing or damaged; it holds part-1-of-"):
        unpack(tmp_path / "parts", tmp_path / "y")
    (tmp_path / "evil").mkdir()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as tar:
        tar.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
    (name,) = carry["part_names"](stream.getvalue(), 1)
    (tmp_path / "evil" / name).write_bytes(stream.getvalue())
    with pytest.raises(EgmError, match="outside"):
        unpack(tmp_path / "evil", tmp_path / "z")
    assert not (tmp_path / "outside").exists()


@pytest.mark.integration  # two trainings
@pytest.mark.usefixtures("warm_start")
def test_reinforcement_goes_on_elsewhere_from_what_was_trained_here(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    settings = [
        *("arms.tiny-s-direct.seeds=[0]", "arms.tiny-m-direct.seeds=[0]", "arms.tiny-s-thinking.seeds=[0, 1]"),
        *("evaluate={splits: [synthref/val], scenes: 1, batch_size: 4, max_new_tokens: 4}", "preflight=false"),
        "latency={requests: 2, warmup: 0, batch_size: 2, batches: 1}",
    ]

    def run(folder: Path, *words: str) -> str:
        command = [sys.executable, "-m", "egm.cli", "reproduce", str(TOY), "--out", str(folder), *words]
        command += [word for setting in settings for word in ("--set", setting)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr[-3000:]
        return ended.stderr

    here, there = tmp_path / "here", tmp_path / "there"
    run(here, "--only", "tiny-s-thinking.seed1", "--until", "latency")
    for words in (["pack", here, tmp_path / "parts"], ["unpack", tmp_path / "parts", there]):
        subprocess.run([sys.executable, SCRIPT, *words], env=environment, check=True, timeout=100)
    said = run(there, "--only", "tiny-s-thinking.seed1", "--only", "tiny-s-grpo.seed1")
    assert "tiny-s-grpo.seed1 train: done in" in said
    assert "tiny-s-thinking.seed1 train" not in said
    assert "tiny-s-thinking.seed1 evaluate" not in said
    page = (there / "report" / "report.md").read_text()
    assert "tiny-s-grpo (seed 1) minus tiny-s-thinking (seed 1)" in page
