"""Seconds a GRPO step takes, split into generation, reward, forward and backward, and the rest.

Run with `uv run python benchmarks/grpo.py recipes/egm-tiny-grpo.yaml --steps 6`. The first steps compile and capture;
they are printed but not averaged. On a GPU every part is waited for, which costs a little of what is measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from egm.models.decode.decoder import BatchDecoder
from egm.training.grpo.prompts import PromptPrefetcher
from egm.training.grpo.recipe import GRPORecipe
from egm.training.grpo.rollouts import RolloutWriter
from egm.training.grpo.run import run_grpo
from egm.training.grpo.trainer import GroundingGRPOTrainer as Trainer
from egm.training.recipe import load_recipe

SPENT: dict[str, float] = defaultdict(float)


def wait() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(owner: Any, method: str, part: str) -> None:
    """Add the time of a method to a part."""
    original: Callable[..., Any] = getattr(owner, method)

    def replacement(*args: Any, **kwargs: Any) -> Any:
        start = wait()
        try:
            return original(*args, **kwargs)
        finally:
            SPENT[part] += wait() - start

    setattr(owner, method, replacement)


def main() -> None:
    """Print a line a step, and the mean of the later half."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    options = parser.parse_args()
    recipe = load_recipe(GRPORecipe, options.recipe, [*options.settings, f"optim.steps={options.steps}", "eval=null"])
    timed(PromptPrefetcher, "get", "prompts")
    timed(BatchDecoder, "__call__", "generate")
    timed(Trainer, "_calculate_rewards", "reward")
    timed(RolloutWriter, "write", "rollouts to disk")
    timed(Trainer, "_generate_and_score_completions", "all before the loss")
    timed(Trainer, "training_step", "training_step")
    lines: list[dict[str, float]] = []
    original = Trainer.log

    def log(self: Any, logs: dict[str, float], *args: Any) -> None:
        original(self, logs, *args)
        if "loss" in logs:
            lines.append(dict(SPENT))
            SPENT.clear()

    Trainer.log = log
    recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"log_every": 1, "save_every": 10**6})})
    with tempfile.TemporaryDirectory() as folder:
        run_grpo(recipe, Path(folder) / "run", check=False)
    rows = [_split(line) for line in lines]
    print("| step | " + " | ".join(rows[0]) + " |\n|---|" + "---|" * len(rows[0]))
    for number, row in enumerate(rows, 1):
        print(f"| {number} | " + " | ".join(f"{value:.3f}" for value in row.values()) + " |")
    later = rows[len(rows) // 2 :]
    print(
        "| mean of the later half | "
        + " | ".join(f"{sum(r[k] for r in later) / len(later):.3f}" for k in rows[0])
        + " |"
    )
    completions = recipe.optim.prompts * recipe.rollout.group
    print(f"\n{completions} completions a generation, {recipe.optim.updates} steps each; seconds on {_device()}")


def _split(spent: dict[str, float]) -> dict[str, float]:
    before = spent.get("all before the loss", 0.0)
    inside = {part: spent.get(part, 0.0) for part in ("prompts", "generate", "reward", "rollouts to disk")}
    rest = max(0.0, before - sum(inside.values()))
    return {
        **inside,
        "rest before the loss": rest,
        "forward and backward": spent.get("training_step", 0.0) - before,
        "all": spent.get("training_step", 0.0),
    }


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"


if __name__ == "__main__":
    main()
