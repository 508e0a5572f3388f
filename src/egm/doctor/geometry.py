"""What would turn the reference's boxes into an engine's: a mirror, another order, another scale, an offset."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, TypeAlias

from egm.boxes import Box, iou
from egm.doctor.compare import AnswerComparison
from egm.errors import BoxError

Corners: TypeAlias = tuple[float, float, float, float]
Map: TypeAlias = Callable[[Corners, tuple[int, int]], Corners]

FITTING: Final = 0.6
"""Share of boxes that a map has to explain, and by how much more than none does."""
STANDARD_ERRORS: Final = 3.0
"""How far from nothing a common shift or factor has to be."""
LEAST: Final = 2.0
"""Thousandths of the frame below which a shift is the scale's own rounding."""
FEWEST: Final = 8
"""Boxes that a common direction is looked for in, at least."""
_ALIKE = 0.5  # IoU from which on a map explains a box
_NEAR = 0.3  # IoU from which on two boxes are of the same thing

MAPS: Final[dict[str, tuple[str, Map]]] = {
    "y_before_x": (
        "x and y changed over",
        lambda b, s: (b[1] * s[0] / s[1], b[0] * s[1] / s[0], b[3] * s[0] / s[1], b[2] * s[1] / s[0]),
    ),
    "mirrored": ("left and right changed over", lambda b, s: (s[0] - b[2], b[1], s[0] - b[0], b[3])),
    "mirrored upside down": ("top and bottom changed over", lambda b, s: (b[0], s[1] - b[3], b[2], s[1] - b[1])),
    "mirrored twice": ("turned half round", lambda b, s: (s[0] - b[2], s[1] - b[3], s[0] - b[0], s[1] - b[1])),
    "other_scale": (
        "pixels read as thousandths",
        lambda b, s: (b[0] * s[0] / 1000, b[1] * s[1] / 1000, b[2] * s[0] / 1000, b[3] * s[1] / 1000),
    ),
    "other_scale back": (
        "thousandths read as pixels",
        lambda b, s: (b[0] * 1000 / s[0], b[1] * 1000 / s[1], b[2] * 1000 / s[0], b[3] * 1000 / s[1]),
    ),
}
"""Maps by the name of their defect, each in words; boxes are in pixels of a frame of a width and a height."""


@dataclass(frozen=True, slots=True)
class Component:
    """A common part of how boxes differ.

    Attributes:
        what: Such as "shift in x".
        value: How large it is, in `unit`.
        error: Its standard error.
        unit: "px", "thousandths of the frame", or "%" of the distance from the centre.
    """

    what: str
    value: float
    error: float
    unit: str

    @property
    def certain(self) -> bool:
        """Whether it is further from nothing than chance would put it, and larger than the scale's rounding."""
        return abs(self.value) > STANDARD_ERRORS * self.error

    def __str__(self) -> str:
        return f"{self.what} {self.value:+.1f} ± {self.error:.1f} {self.unit}"


def fitting_map(comparisons: Sequence[AnswerComparison]) -> tuple[str, str] | None:
    """Find the map that turns most of the reference's boxes into the engine's, where it explains them far better.

    Returns:
        Its defect and what it does, in words; None where there is none.
    """
    pairs = [(one.expected, one.box, one.size) for one in comparisons if one.expected is not None and one.box]
    if len(pairs) < 3:
        return None
    plain = sum(iou(box, found) >= _ALIKE for box, found, _ in pairs)
    maps = MAPS | _fitted(pairs)
    counts = {name: sum(_overlap(own, *pair) >= _ALIKE for pair in pairs) for name, (_, own) in maps.items()}
    best = max(counts, key=lambda name: counts[name])
    if counts[best] < FITTING * len(pairs) or counts[best] < plain + 0.3 * len(pairs):
        return None
    return best.partition(" ")[0], f"{maps[best][0]} in {counts[best]} of {len(pairs)} boxes"


def _fitted(pairs: Sequence[tuple[Box, Box, tuple[int, int]]]) -> dict[str, tuple[str, Map]]:
    """The factor and the shift, in thousandths of the frame, that most boxes have in common."""
    fx, fy = (
        median(found.corners[axis + 2] / max(box.corners[axis + 2], 1.0) for box, found, _ in pairs) for axis in (0, 1)
    )
    dx, dy = (
        median((found.corners[axis] - box.corners[axis]) / size[axis] for box, found, size in pairs) for axis in (0, 1)
    )
    return {
        "other_scale factor": (
            f"coordinates times {fx:.2f} in x and {fy:.2f} in y",
            lambda b, _: (b[0] * fx, b[1] * fy, b[2] * fx, b[3] * fy),
        ),
        "displaced shift": (
            f"shifted by {1000 * dx:+.0f} in x and {1000 * dy:+.0f} in y, thousandths of the frame,",
            lambda b, s: (b[0] + dx * s[0], b[1] + dy * s[1], b[2] + dx * s[0], b[3] + dy * s[1]),
        ),
    }


def _overlap(own: Map, box: Box, found: Box, size: tuple[int, int]) -> float:
    try:
        return iou(Box(*own(box.corners, size)), found)
    except BoxError:
        return 0.0


def common_components(comparisons: Sequence[AnswerComparison]) -> list[Component]:
    """Measure what boxes have in common in how they differ: a shift and a factor along each axis.

    Boxes of other things, with an IoU below 0.3, say nothing about it. The shift is the mean over pictures of how far
    the centre has moved, in pixels and in thousandths of the frame; the factor is the slope of that over the place of
    the centre. Each comes with its standard error over pictures.

    Returns:
        Those that are certain, the surest first.
    """
    pairs = [one for one in comparisons if one.box and one.expected and one.iou is not None and one.iou >= _NEAR]
    if len(pairs) < FEWEST:
        return []
    found = []
    for axis, name in ((0, "x"), (1, "y")):
        middles = [(one.expected.corners[axis] + one.expected.corners[axis + 2]) / 2 for one in pairs if one.expected]
        moved = [
            (one.box.corners[axis] + one.box.corners[axis + 2]) / 2 - middle
            for one, middle in zip(pairs, middles, strict=True)
            if one.box
        ]
        sides = [one.size[axis] for one in pairs]
        thousandths = [1000 * value / side for value, side in zip(moved, sides, strict=True)]
        floor = [LEAST * side / 1000 for side in sides]
        if (shift := _mean(moved, f"shift in {name}", "px")) and abs(shift.value) > sum(floor) / len(floor):
            found.append(shift)
        if (shift := _mean(thousandths, f"shift in {name}", "thousandths of the frame")) and abs(shift.value) > LEAST:
            found.append(shift)
        places = [middle / side - 0.5 for middle, side in zip(middles, sides, strict=True)]
        if (factor := _slope(places, thousandths, f"stretch in {name}")) and abs(factor.value) > LEAST / 5:
            found.append(factor)
    return sorted((one for one in found if one.certain), key=lambda one: -abs(one.value) / max(one.error, 1e-9))


def _mean(values: Sequence[float], what: str, unit: str) -> Component:
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return Component(what, mean, spread / math.sqrt(len(values)), unit)


def _slope(places: Sequence[float], moved: Sequence[float], what: str) -> Component | None:
    """Fit how far centres move by where they are: 1000 thousandths from edge to edge, so a tenth of that in percent."""
    count, centre, mean = len(places), sum(places) / len(places), sum(moved) / len(moved)
    width = sum((place - centre) ** 2 for place in places)
    if count < FEWEST or width < 1e-6:
        return None
    slope = sum((place - centre) * (value - mean) for place, value in zip(places, moved, strict=True)) / width
    rest = sum((value - mean - slope * (place - centre)) ** 2 for place, value in zip(places, moved, strict=True))
    return Component(what, slope / 10, math.sqrt(rest / (count - 2) / width) / 10, "% of the distance")
