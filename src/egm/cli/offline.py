"""The offline teacher on the command line: what it is refused with, and SynthRef drawn for it."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from egm.errors import EgmError

if TYPE_CHECKING:
    from egm.datasets import Dataset
    from egm.evaluate.shards import Shard
    from egm.rationales import SynthRefTeacher

SYNTHREF: Final = "synthref"
"""What it is called, and its data."""
_MANY: Final = 1000  # samples from which on drawing them is worth the start of processes


def open_offline(style: str, corrupt: float | None, useless: Mapping[str, object]) -> SynthRefTeacher:
    """Make it; refuse options that it would not look at, by their names.

    Raises:
        EgmError: If one is given, or it does not speak the style.
    """
    from egm.rationales import Corruption, SynthRefTeacher

    for option, given in useless.items():
        if given:
            raise EgmError(f"synthref is no model, samples nothing and looks at no picture: leave out {option}")
    return SynthRefTeacher(style, None if corrupt is None else Corruption.evenly(corrupt))


def is_drawn(dataset: str, limit: int | None) -> bool:
    """Whether it is SynthRef itself, and of a size that is known."""
    from egm.datasets.synthetic import SPLITS

    name, _, split = dataset.partition("/")
    if name != SYNTHREF or split not in SPLITS or Path(dataset).exists():
        return False
    return limit is not None or SPLITS[split].scenes is not None  # else opening it refuses it


def count_samples(dataset: str, limit: int | None) -> int | None:
    """How many samples of SynthRef are explained."""
    from egm.datasets import split_size

    return min((count for count in (split_size(dataset), limit) if count is not None), default=None)


def draw_samples(
    teacher: SynthRefTeacher, dataset: str, limit: int | None, out: Path, style: str, tries: int, share: Shard | None
) -> Dataset:
    """Make SynthRef's samples, what the offline teacher says of them and their pictures at once."""
    from egm.rationales import draw_explained

    workers = min(os.cpu_count() or 1, 8) if limit is None or limit >= _MANY else 1
    split = dataset.partition("/")[2]
    drawn, teacher.told = draw_explained(split, limit, out, style, tries=tries, workers=workers, shard=share)
    gc.freeze()  # what stays for the whole run need not be gone through again and again
    return drawn
