"""Titles of misses, percentages and the note on intervals, the same in every table and page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from egm.failures import Miss
from egm.stats import PairedDifference

MISS_TITLES: Final[dict[Miss, str]] = {
    Miss.NO_BOX: "no box",
    Miss.MIRRORED: "left and right mistaken",
    Miss.WRONG_SAME_KIND: "another object of the same kind",
    Miss.WRONG_OBJECT: "another annotated object",
    Miss.PART: "a part for the whole",
    Miss.WHOLE: "the whole for a part",
    Miss.LOOSE: "the right object, loosely",
    Miss.OTHER: "other",
    Miss.FALSE_ALARM: "a box, where nothing matches",
    Miss.FALSE_REJECTION: '"nothing matches", where something does',
    Miss.EXTRA: "all boxes, and others besides",
    Miss.MISSING: "some of the boxes",
    Miss.MIXED: "some of the boxes, and others besides",
}
"""The kinds of misses."""


def percent(value: float) -> str:
    """A share in percent, one more digit than published tables give."""
    return f"{100 * value:.2f}"


def intervals_note(images: int) -> str:
    """What the intervals stand on: so many pictures, or none that are known."""
    if images:
        return f"95 % intervals, clustered by {images} pictures"
    return "pictures are not known: intervals take rows for independent and are too narrow; --data mends that"


def differences_notes(differences: Iterable[PairedDifference], unit: str = "pictures") -> tuple[str, ...]:
    """What keeps paired differences from deciding anything: too few pictures; and that two intervals disagree."""
    found = list(differences)
    few = sorted({each.analytic.clusters for each in found if each.p_value is None})
    notes = [f"not decided: with {few[0]} {unit} all may lie on one side by chance; ask about more"] if few else []
    if any(each.disagree for each in found):
        notes.append("where one interval holds 0 and the other does not, p goes by the formula's")
    return tuple(notes)
