"""What a launch is, as torchrun and accelerate tell each of its processes: before there is a trainer to ask."""

from __future__ import annotations

import os

from egm.errors import RecipeError


def is_first() -> bool:
    """Whether this process is the first of its launch, or the only one: it speaks for all of them."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """Return how many processes this launch has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def sharding() -> str | None:
    """Return what shards weights in this launch, "FSDP" or "DeepSpeed"; None where each process has all."""
    named = {"FSDP": "ACCELERATE_USE_FSDP", "DeepSpeed": "ACCELERATE_USE_DEEPSPEED"}
    return next((name for name, key in named.items() if os.environ.get(key, "false").lower() == "true"), None)


def check_precision(*, bf16: bool) -> None:
    """Refuse a launcher that computes in another precision than the recipe says, which under shards has the last word.

    Args:
        bf16: Whether the recipe computes in bfloat16.

    Raises:
        RecipeError: If it does.
    """
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched != "no" and launched != ("bf16" if bf16 else "no"):
        raise RecipeError(
            f"the launcher computes in {launched}, and this run would not: launch with --mixed_precision no, or set "
            "optim.precision to bf16, on a GPU"
        )
