"""A tiny model with random weights, made so lively that its text depends on the picture and the phrase."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from ..families import random_checkpoint


def save_tiny(folder: Path) -> Path:
    """Give a folder of the model that may be written to."""
    return shutil.copytree(random_checkpoint("qwen3_vl"), folder)


def one_token(texts: Sequence[str], encode: Callable[[str], list[int]], elsewhere: str = "") -> tuple[int, int]:
    """Of a text that grows by a token at a time, which one is told by what it added, and occurs nowhere before it.

    Returns:
        How many tokens the text has with it, and its number.
    """
    for tokens, (less, more) in enumerate(pairwise(texts), start=2):
        added = more.removeprefix(less)
        if added and added not in less + elsewhere and len(ids := encode(added)) == 1:
            return tokens, ids[0]
    raise AssertionError("no token is told by its text")
