"""Signs that the boxes of a file are on another scale than its format's, where all values fit both; never acted on."""

from __future__ import annotations

import re
from collections.abc import Iterable

from egm.boxes import Box
from egm.datasets.dataset import Dataset
from egm.datasets.fields import BoxScale
from egm.types import Sample

_FEWEST = 20
_LARGEST = 750
"""Every other box or so passes the edge of a picture this large, if it is on the 0-1000 scale: of 20, one does."""

_NEAR = 1.5
_ONE = 1 + 1e-6
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_CORNERS = re.compile(rf"[\[(]{','.join([_NUMBER] * 4)}[\])]")


def scale_notes(dataset: Dataset) -> list[str]:
    """Look for three signs that boxes are on another scale than their format's.

    Boxes that lie within 0 to 1, on any scale; and, where the format is on the 0-1000 scale, a rationale that gives the
    answer's box in pixels, and boxes that all lie in pixels. A row mixed in without such a sign is not found: its
    values could be of both scales.

    Args:
        dataset: The samples.

    Returns:
        What was found, a sentence for each sign.
    """
    boxed = [sample for sample in dataset.annotations() if sample.box is not None]
    notes = []
    if shares := [sample.id for sample in boxed if _within_one(sample, dataset.scale)]:
        more = ", ..." if len(shares) > 1 else ""
        notes.append(
            f"{len(shares):,} of {len(boxed):,} boxes lie within 0 to 1 ({shares[0]}{more}): they look like shares of "
            f"the picture's sides, and this format is on the scale {dataset.scale}"
        )
    if dataset.scale != "0-1000":
        return notes
    samples = [sample for sample in boxed if sample.size is not None]
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


def _within_one(sample: Sample, scale: BoxScale) -> bool:
    """Tell whether the numbers of a box, as its row gives them, are all at most 1: no object is that small."""
    assert sample.box is not None
    width, height = sample.size if sample.size is not None and scale == "0-1000" else (1000, 1000)
    return bool(sample.box.x2 * 1000 / width <= _ONE and sample.box.y2 * 1000 / height <= _ONE)


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
