"""Signs that a file on the 0-1000 scale holds boxes in pixels, where all values fit both; told, and never acted on."""

from __future__ import annotations

import re
from collections.abc import Iterable

from egm.boxes import Box
from egm.datasets.dataset import Dataset
from egm.types import Sample

_FEWEST = 20
_LARGEST = 750
"""Every other box or so passes the edge of a picture this large, if it is on the 0-1000 scale: of 20, one does."""

_NEAR = 1.5
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_CORNERS = re.compile(rf"[\[(]{','.join([_NUMBER] * 4)}[\])]")


def scale_notes(dataset: Dataset) -> list[str]:
    """Look for two signs: a rationale that gives the answer's box on the other scale, and boxes that all lie in pixels.

    A row mixed in without either sign is not found: its values could be of both scales.

    Args:
        dataset: The samples; only those of a format on the 0-1000 scale are looked at.

    Returns:
        What was found, a sentence for each sign.
    """
    if dataset.scale != "0-1000":
        return []
    samples = [sample for sample in dataset.annotations() if sample.box is not None and sample.size is not None]
    notes = []
    if torn := [sample.id for sample in samples if _is_torn(sample)]:
        more = ", ..." if len(torn) > 1 else ""
        notes.append(
            f"in {len(torn):,} rows ({torn[0]}{more}) the rationale gives the answer's box on another scale: one of "
            "the two is in pixels, and this format is on the 0-1000 scale"
        )
    small = [sample for sample in samples if sample.size is not None and max(sample.size) <= _LARGEST]
    if len(small) >= _FEWEST and not any(_passes_edge(sample) for sample in small):
        notes.append(
            f"none of {len(small):,} boxes would leave its picture if it were in pixels, as boxes on the 0-1000 scale "
            "of this format do: look whether they are pixels"
        )
    return notes


def _is_torn(sample: Sample) -> bool:
    """Tell whether a rationale has the answer's box as it is on the other scale, and not as it is in the answer."""
    assert sample.box is not None
    assert sample.size is not None
    written = [tuple(map(float, found.groups())) for found in _CORNERS.finditer(sample.rationale or "")]
    own = sample.box.to_1000(sample.size)
    if not written or _has(written, own):
        return False
    return _has(written, sample.box) or _has(written, Box(*own).to_1000(sample.size))


def _has(written: list[tuple[float, ...]], box: Iterable[float]) -> bool:
    corners = tuple(box)
    return any(all(abs(a - b) <= _NEAR for a, b in zip(other, corners, strict=True)) for other in written)


def _passes_edge(sample: Sample) -> bool:
    assert sample.box is not None
    assert sample.size is not None
    _, _, x2, y2 = sample.box.to_1000(sample.size)
    return x2 > sample.size[0] or y2 > sample.size[1]
