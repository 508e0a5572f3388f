"""The order in which jobs begin: longest first where several arms run at once, arm by arm where one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from egm.reproduce.recipe import ReproduceRecipe
from egm.reproduce.run import jobs_left, make_plan
from egm.training.recipe import load_recipe

from .conftest import Write

SHIPPED = Path(__file__).parents[2] / "recipes" / "reproduce.yaml"


def order(path: Path, out: Path, *, parallel: int = 2, **options: Any) -> list[str]:
    plan = make_plan(load_recipe(ReproduceRecipe, path), out, **options)
    return [job.name for job in jobs_left(plan, parallel=parallel)]


def both(names: list[str]) -> list[str]:
    return [f"{name} {stage}" for name in names for stage in ("train", "evaluate")]


def test_several_at_once_begin_with_the_longest(tmp_path: Path) -> None:
    """And with what others wait for: reinforcement goes on from tiny-s-thinking."""
    names = order(SHIPPED, tmp_path / "out")
    arms = ["tiny-m-thinking", "tiny-m-direct", "tiny-s-thinking", "tiny-s-grpo", "tiny-s-direct"]
    assert names == both(["tiny-l-direct.seed0", *(f"{arm}.seed{seed}" for arm in arms for seed in (0, 1))])


def test_what_is_not_known_is_taken_for_long(write: Write, tmp_path: Path) -> None:
    epochs = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1}
    names = order(write(defaults__sft__optim=epochs), tmp_path / "out")
    assert names == both(["direct", "large", "thinking", "reinforced"])


def test_one_at_a_time_leaves_whole_arms(write: Write, tmp_path: Path) -> None:
    names = order(write(), tmp_path / "out", parallel=1)
    assert names == both(["direct", "large", "thinking", "reinforced"])
