"""Recipes and what surrounds them, for the tests of `egm verl`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from egm.training.grpo.recipe import GRPORecipe
from egm.training.verl.configure import Cluster, Policy

POLICY = Policy(Path("/models/m"), "qwen3_vl", context=4096, patch=16, merge=2, pixels=(4096, 112_896))
ONE_GPU = Cluster(gpus=1, nodes=1, cpus=16)


def recipe(**sections: dict[str, Any]) -> GRPORecipe:
    """A recipe of egm-tiny; sections are laid over it, key by key."""
    content: dict[str, dict[str, Any]] = {
        "model": {"name": "egm-tiny"},
        "data": {"train": "synthref/train-reworded", "scenes": 100},
        "rollout": {"engine": "vllm-colocate", "group": 4, "max_new_tokens": 320},
        "optim": {"steps": 6, "prompts": 8, "zero_spread": "count"},
    }
    for name, values in sections.items():
        content[name] = content.get(name, {}) | values
    return GRPORecipe.model_validate(content)
