"""Which of the processes of a launch this is, as torchrun and accelerate tell it: before there is a trainer to ask."""

from __future__ import annotations

import os


def is_first() -> bool:
    """Whether this process is the first of its launch, or the only one: it speaks for all of them."""
    return os.environ.get("RANK", "0") == "0"
