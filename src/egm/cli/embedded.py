"""What is special about the model that comes with the package: its world is small."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egm.types import Sample

SIGNATURE = "SynthRef"
"""Text under `Software` in the PNGs that `egm data synthetic` writes."""

_VOCABULARY = """
circle square triangle diamond star cross object circles squares triangles diamonds stars crosses objects
red orange yellow green cyan blue purple solid striped dotted small medium large
left right top bottom above below over under higher lower highest lowest leftmost rightmost topmost bottommost
largest biggest smallest size nearest closest farthest furthest far between somewhere side counting first second third
a an and the one only of on in to from with at is are isn't aren't not anything but than that which it its them their
"""
WORDS = frozenset(_VOCABULARY.split())
"""Every word of SynthRef's phrases."""


def notice(pictures: Iterable[str], phrases: Iterable[str]) -> str | None:
    """Say so, in one line, if the embedded model is asked about what is not its world.

    Args:
        pictures: Paths of the images.
        phrases: What is asked.

    Returns:
        The line, or None if every picture is marked as SynthRef's and every word is one of `WORDS`.
    """
    foreign = sum(not _is_marked(picture) for picture in pictures)
    words = {word for phrase in phrases for word in re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+", phrase.lower())}
    unknown = sorted(word for word in words if word.replace("’", "'") not in WORDS)
    if not foreign and not unknown:
        return None
    reasons = []
    if foreign:
        reasons.append("what you show it is not marked as such")
    if unknown:
        named = ", ".join(f"'{word[:20]}'" for word in unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        reasons.append(f"its language lacks {named}")
    return (
        f"note: egm-tiny is a toy that knows only SynthRef's drawn shapes; {' and '.join(reasons)}, "
        "so do not trust its boxes here (for photographs: --model nvidia/EGM-8B)"
    )


def dataset_notice(splits: Iterable[Iterable[Sample]]) -> str | None:
    """Say so, as `notice` does, of data that is not made here: a few rows of each dataset tell.

    Args:
        splits: What the model is asked about; only a `Dataset` of another kind than SynthRef is looked at.
    """
    from egm.datasets.dataset import Dataset

    others = (split for split in splits if isinstance(split, Dataset) and split.kind != "SynthRef")
    rows = [row for split in others for row in islice(split.annotations(), 20)]
    pictures = [os.fspath(row.image) if isinstance(row.image, str | os.PathLike) else "" for row in rows]
    return notice(pictures, [row.phrase for row in rows])


def _is_marked(path: str) -> bool:
    try:
        if not os.path.isfile(path):  # noqa: PTH113 - a pipe would be waited for
            return False
        with open(path, "rb") as file:  # noqa: PTH123 - whatever the path is, the image loader has the last word
            return f"tEXtSoftware\0{SIGNATURE}".encode() in file.read(1024)
    except (OSError, ValueError):
        return False
