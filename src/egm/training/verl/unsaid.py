"""What a recipe says and verl cannot, each with what it becomes.

verl counts in rollouts: a step of its trainer, of its schedule and of its checkpoints is a generation, where a recipe
counts optimiser steps, `optim.updates` x `optim.iterations` a generation.
"""

from __future__ import annotations

import math

from egm.training.grpo.recipe import GRPORecipe


def rollouts_of(recipe: GRPORecipe) -> int:
    """Return how many generations a recipe's optimiser steps take."""
    return math.ceil(recipe.optim.steps / _per_rollout(recipe))


def in_rollouts(recipe: GRPORecipe, steps: int, *, least: int = 1) -> int:
    """Count optimiser steps in rollouts, to the nearest, and `least` at least."""
    return max(least, round(steps / _per_rollout(recipe)))


def unsaid(recipe: GRPORecipe, engine: str) -> list[str]:
    """List what a recipe says and verl cannot, each with what it becomes.

    Args:
        recipe: The recipe.
        engine: What draws completions: `vllm` or `sglang`.
    """
    optim, rollout, lora = recipe.optim, recipe.rollout, recipe.model.lora
    per, drawn_by = _per_rollout(recipe), {"vllm": "vLLM", "sglang": "SGLang"}[engine]
    rollouts = rollouts_of(recipe)
    counted = {
        "optim.steps": (optim.steps, rollouts * per),
        "optim.warmup_steps": (optim.warmup_steps, in_rollouts(recipe, optim.warmup_steps, least=0) * per),
        "run.save_every": (recipe.run.save_every, in_rollouts(recipe, recipe.run.save_every) * per),
    }
    if recipe.eval is not None:
        counted["eval.every"] = (recipe.eval.every, in_rollouts(recipe, recipe.eval.every) * per)
    found = {f"{key} {said}": f"{becomes}, whole rollouts of {per} steps" for key, (said, becomes) in counted.items()}
    found = {key: text for key, text in found.items() if int(key.rpartition(" ")[2]) != int(text.partition(",")[0])}
    if recipe.model.freeze:
        found[f"model.freeze {', '.join(recipe.model.freeze)}"] = "nothing is frozen: verl trains every weight"
    if rollout.engine != "vllm-colocate":
        found[f"rollout.engine {rollout.engine}"] = f"{drawn_by} on the same GPUs"
    if rollout.candidates > 1:
        found[f"rollout.candidates {rollout.candidates}"] = (
            "groups without spread are drawn anew until enough have some (algorithm.filter_groups)"
        )
    elif optim.zero_spread == "mask":
        found["optim.zero_spread mask"] = "groups without spread count in the means and in optim.kl"
    if rollout.branch is not None:
        found[f"rollout.branch {rollout.branch!r}"] = "every completion is drawn whole"
    if optim.scale == "batch":
        found["optim.scale batch"] = "advantages are divided by the deviation of their group"
    if optim.schedule == "linear":
        found["optim.schedule linear"] = "cosine"
    if lora is not None:
        if lora.dropout:
            found[f"model.lora.dropout {lora.dropout:g}"] = "0"
        if lora.full:
            found[f"model.lora.full {', '.join(lora.full)}"] = "the adapter alone is trained"
        if lora.alpha != round(lora.alpha):
            found[f"model.lora.alpha {lora.alpha:g}"] = f"{round(lora.alpha)}"
    if recipe.run.compile:
        found["run.compile true"] = "verl compiles what it computes entropies with, and no layers"
    return [f"{key}: {text}" for key, text in found.items()]


def _per_rollout(recipe: GRPORecipe) -> int:
    return recipe.optim.updates * recipe.optim.iterations
