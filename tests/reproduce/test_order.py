"""The order of beginning: the longest chain first where several arms run at once, arm by arm where one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from egm.reproduce.folder import ArmFolder
from egm.reproduce.recipe import ReproduceRecipe
from egm.reproduce.run import _jobs, make_plan
from egm.training.recipe import load_recipe

from .conftest import Write

SHIPPED = Path(__file__).parents[2] / "recipes" / "reproduce.yaml"


def begun(path: Path, out: Path, *, parallel: int = 2, **options: Any) -> list[str]:
    plan = make_plan(load_recipe(ReproduceRecipe, path), out, **options)
    return [job.name for job in _jobs(plan, 1, parallel)]


def trainings(names: list[str]) -> list[str]:
    return [name.removesuffix(" train") for name in names if name.endswith(" train")]


def test_the_longest_begins_first_and_what_others_wait_for_early(tmp_path: Path) -> None:
    names = begun(SHIPPED, tmp_path / "out")
    assert trainings(names) == ["tiny-s-thinking", "tiny-l-direct", "tiny-s-grpo", "tiny-m-direct", "tiny-s-direct"]
    assert [name.endswith(" train") for name in names] == [True] * 5 + [
        False
    ] * 5  # none is kept waiting by an evaluation
    assert names[5] == "tiny-l-direct evaluate"


def test_all_that_hangs_on_a_job_counts(write: Write, tmp_path: Path) -> None:
    out, short = tmp_path / "out", {"steps": 1, "prompts": 2, "warmup_steps": 0}
    fine_tuned = {"steps": 100, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1}
    parts = {"defaults__sft__optim": fine_tuned, "defaults__grpo__optim": short}
    chains = trainings(begun(write(**parts), out, ablations=["unboxed"]))
    assert chains == ["large", "thinking", "unboxed", "direct", "reinforced"]
    longer = write(**parts | {"defaults__grpo__optim": short | {"steps": 100}})
    assert trainings(begun(longer, out)) == ["thinking", "reinforced", "large", "direct"]
    assert trainings(begun(longer, out, only=["thinking", "large"])) == ["large", "thinking"]


def test_of_an_interrupted_training_the_rest_counts(tmp_path: Path) -> None:
    train = ArmFolder(tmp_path / "out", "tiny-l-direct").train
    train.mkdir(parents=True)
    (tmp_path / "out" / "reproduce.yaml").write_text("{arms: {}, evaluate: {}}")
    (train / "log.jsonl").write_text(json.dumps({"step": 2790}) + "\n")
    names = trainings(begun(SHIPPED, tmp_path / "out"))
    assert names == ["tiny-s-thinking", "tiny-s-grpo", "tiny-m-direct", "tiny-s-direct", "tiny-l-direct"]


def test_one_at_a_time_leaves_whole_arms(write: Write, tmp_path: Path) -> None:
    names = begun(write(), tmp_path / "out", parallel=1)
    arms = ["direct", "large", "thinking", "reinforced"]
    assert names == [f"{arm} {stage}" for arm in arms for stage in ("train", "evaluate")]
