"""Next steps run as they are printed, also where a folder's name holds what a shell reads otherwise."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Egm

ODD = "it's my $HOME"
ANSWER = '</think> [{"bbox_2d": [0, 0, 500, 500], "label": "it"}]'
TINY: dict[str, Any] = {
    "model": {"name": "tiny-s", "from_scratch": True},
    "data": {"scenes": 4, "phrases": 1},
    "optim": {"steps": 1, "batch_size": 2, "warmup_steps": 0},
    "run": {"log_every": 1, "save_every": 1},
}


def words(step: str) -> list[list[str]]:
    """The words of each command of a line, as a shell reads them."""
    return [shlex.split(command) for command in step.split(", then ")]


def test_rows_are_checked_asked_about_and_reported(egm: Egm, tmp_path: Path) -> None:
    (tmp_path / "right.txt").write_text(ANSWER)
    drawn = egm("data", "synthetic", "--scenes", 1, "--out", ODD)
    check, ask = words(drawn.next)
    assert (check, ask) == (
        ["egm", "data", "check", f"{ODD}/val.jsonl"],
        ["egm", "eval", f"{ODD}/val.jsonl"],
    )
    checked = egm(*check[1:])
    assert (checked.code, words(checked.next)) == (0, [ask])
    run = egm(*ask[1:], "--script", "right.txt", "--out", f"{ODD}/run")
    (report,) = words(run.next)
    assert egm(*report[1:]).code == 0
    assert (tmp_path / ODD / "run" / "gallery.html").is_file()
    converted = egm("data", "convert", f"{ODD}/val.jsonl", f"{ODD}/deeper/rows.jsonl")
    (again,) = words(converted.next)
    assert egm(*again[1:]).code == 0
    task = egm("data", "convert", f"{ODD}/val.jsonl", f"{ODD}/tasks/task.yaml")
    assert words(task.next) == [["lmms-eval", "--include_path", f"{ODD}/tasks", "--tasks", "egm_task"]]


def test_shards_are_put_together(egm: Egm, tmp_path: Path) -> None:
    (tmp_path / "right.txt").write_text(ANSWER)
    asked = ("eval", "synthref/val", "--scenes", 2, "--script", "right.txt")
    assert egm(*asked, "--shard", "1/2", "--out", "one").code == 0
    merged = egm("eval", "merge", "one", "--out", ODD, "--allow-partial")
    assert words(merged.next)[0][-2:] == ["--out", ODD]


def test_rationales_are_trained_on(egm: Egm, tmp_path: Path) -> None:
    made = egm("rationales", "synthref/train", "--teacher", "synthref", "--limit", 8, "--out", ODD)
    report, train = words(made.next)
    assert egm(*report[1:]).code == 0
    assert train[:2] == ["egm", "sft"]
    (tmp_path / "RECIPE.yaml").write_text(yaml.safe_dump({**TINY, "data": {}}))
    trained = egm(*train[1:], "--dry-run")
    assert trained.code == 0, trained.err


def egm_in_a_process(folder: Path, *arguments: object) -> list[list[str]]:
    """Run a command in a process of its own, and return the commands of its next step."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "egm.cli", *map(str, arguments)]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("next: ")
    return words(last.removeprefix("next: "))


@pytest.mark.usefixtures("warm_start")
def test_trained_models_are_exported_and_averaged(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(TINY))
    ask, export = egm_in_a_process(tmp_path, "sft", "recipe.yaml", "--out", f"{ODD}/sft")
    assert ask == ["egm", "eval", "DATASET", "--model", f"{ODD}/sft/model"]
    ask, push = egm_in_a_process(tmp_path, *export[1:])
    assert ask == ["egm", "eval", "DATASET", "--model", f"{ODD}/sft/export"]
    assert push == ["egm", "models", "push", f"{ODD}/sft/export", "OWNER/NAME"]
    ask, export = egm_in_a_process(tmp_path, "models", "average", ask[-1], ask[-1], "--out", f"{ODD}/mean")
    assert (ask[-1], export[-1]) == (f"{ODD}/mean", f"{ODD}/mean")
    recipe = {**TINY, "model": {"name": ask[-1]}, "data": {"scenes": 2}, "optim": {"steps": 1, "prompts": 1}}
    recipe["rollout"] = {"group": 2, "max_new_tokens": 4}
    (tmp_path / "rl.yaml").write_text(yaml.safe_dump(recipe))
    ask, export = egm_in_a_process(tmp_path, "grpo", "rl.yaml", "--skip-preflight", "--out", f"{ODD}/rl")
    assert (ask[-1], export[-1]) == (f"{ODD}/rl/model", f"{ODD}/rl")


@pytest.mark.usefixtures("warm_start")
def test_a_reproduction_goes_on(tmp_path: Path) -> None:
    from ..reproduce.conftest import RECIPE

    recipe, out = tmp_path / f"{ODD}.yaml", tmp_path / ODD
    recipe.write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    given = ("--only", "direct", "--set", "latency.requests=3")
    (again,) = egm_in_a_process(tmp_path, "reproduce", recipe, "--out", out, "--until", "train", *given)
    assert again == ["egm", "reproduce", str(recipe), "--out", str(out), *given[2:], *given[:2]]
