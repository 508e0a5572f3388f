from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

RECIPE: dict[str, Any] = {
    "device": "cpu",
    "preflight": False,
    "defaults": {
        "sft": {
            "model": {"from_scratch": True},
            "data": {"scenes": 16, "phrases": 2},
            "optim": {"steps": 3, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1},
            "run": {"log_every": 1, "save_every": 1},
        },
        "grpo": {
            "data": {"scenes": 4},
            "rollout": {"group": 2, "max_new_tokens": 4},
            "optim": {"steps": 2, "prompts": 2, "warmup_steps": 0},
            "run": {"log_every": 1, "save_every": 1},
        },
    },
    "arms": {
        "direct": {"stage": "sft", "set": ["model.name=tiny-s", "data.thinking=false"]},
        "large": {"stage": "sft", "set": ["model.name=tiny-m", "data.thinking=false"]},
        "thinking": {"stage": "sft", "set": ["model.name=tiny-s"]},
        "reinforced": {"stage": "grpo", "parent": "thinking"},
    },
    "roles": {"direct": "direct", "thinking": "thinking", "reinforced": "reinforced", "large": ["large"]},
    "ablations": {
        "unboxed": {
            "stage": "sft",
            "against": "thinking",
            "set": ["model.name=tiny-s", "data.rationale=unboxed"],
        },
        "unboxed-rl": {"stage": "grpo", "parent": "unboxed", "against": "reinforced"},
    },
    "evaluate": {"splits": ["synthref/val"], "scenes": 1, "batch_size": 4, "max_new_tokens": 4},
    "latency": {"requests": 2, "warmup": 0, "batch_size": 2, "batches": 1},
}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the recipe; `key__key=value` changes it, and None takes a key out."""

    def written(**changes: Any) -> Path:
        content = deepcopy(RECIPE)
        for place, value in changes.items():
            *sections, last = place.split("__")
            at = content
            for section in sections:
                at = at.setdefault(section, {})
            if value is None:
                del at[last]
            else:
                at[last] = value
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return written
