"""Contradictions planted in a rationale: a conclusion that its own box, or the phrase, says is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from egm.boxes import Box, iou
from egm.datasets.synthetic.rng import Rng
from egm.types import Sample

Words: TypeAlias = Mapping[str, Mapping[str, list[str]]]

_AT: Final = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
_MOST: Final = {"left": "leftmost", "right": "rightmost", "top": "topmost", "bottom": "lowest"}
_OPPOSITE: Final = {"largest": "smallest", "biggest": "smallest", "smallest": "largest"}
_NUMBERS: Final = {"first": 1, "second": 2, "third": 3, "fourth": 4}
_ORDINAL: Final = re.compile(r"\b(second|third)\b")
_FROM_SIDE: Final = re.compile(r"\bfrom (?:the )?(left|right|top|bottom)\b")
_SIZE: Final = re.compile(r"\b(largest|biggest|smallest)\b")
_ENDING: Final = re.compile(
    r"((?:so it is|and that is|which is|so the one meant is) [\w ]+?) (?:at|on|in) the (?:[a-z ]+)\.$", re.IGNORECASE
)
_OFF_CENTRE: Final = 0.12  # of a side, from which on an object is clearly on one side


def contradict(sample: Sample, text: str, words: Words, rng: Rng) -> tuple[str, str]:
    """Plant a contradiction.

    Args:
        sample: What the rationale explains; box and size are known.
        text: The rationale.
        words: Wordings by defect and kind.
        rng: Chooses the kind, among those that the sample can be contradicted in, and the words.

    Returns:
        The kind, and the text.
    """
    seldom = ("ordinal", "size") if rng.chance(0.6) else ()  # what few phrases allow comes first in most of them
    for kind in (*seldom, *rng.shuffled(tuple(_KINDS))):
        contradicted = _KINDS[kind](sample, text, words, rng)
        if contradicted is not None:
            return kind, contradicted
    raise AssertionError("that there is none can always be said")


def _none(_: Sample, text: str, words: Words, rng: Rng) -> str | None:
    sentence = rng.choice(words["contradiction"]["none"])
    return sentence if rng.chance(0.3) else f"{text} {sentence}"


def _side(sample: Sample, text: str, words: Words, rng: Rng) -> str | None:
    wrong = _wrong_sides(sample)
    if not wrong:
        return None
    side = rng.choice(wrong)
    names = {"side": side, "at": _AT[side], "most": _MOST[side]}
    return f"{text} {rng.choice(words['contradiction']['side']).format(**names)}"


def _swapped(sample: Sample, text: str, words: Words, rng: Rng) -> str | None:  # noqa: ARG001 - the place is the teacher's
    wrong = _wrong_sides(sample)
    if not wrong or not _ENDING.search(text):
        return None
    return _ENDING.sub(rf"\1 {_AT[rng.choice(wrong)]}.", text)


def _box(sample: Sample, text: str, words: Words, rng: Rng) -> str | None:
    assert sample.box is not None
    assert sample.size is not None
    for _ in range(20):
        x1, y1 = rng.between(0, 800), rng.between(0, 800)
        numbers = (x1, y1, x1 + rng.between(60, 200), y1 + rng.between(60, 200))
        if iou(Box.from_1000(numbers, sample.size), sample.box) < 0.2:
            named = dict(zip(("x1", "y1", "x2", "y2"), numbers, strict=True))
            return f"{text} {rng.choice(words['contradiction']['box']).format(**named)}"
    return None


def _ordinal(sample: Sample, text: str, words: Words, rng: Rng) -> str | None:
    ordinals, sides = _ORDINAL.findall(sample.phrase), _FROM_SIDE.findall(sample.phrase)
    if len(ordinals) != 1 or len(sides) != 1 or sample.meta.get("kind") != "ordinal":
        return None
    wrong = rng.choice([name for name in _NUMBERS if name != ordinals[0]])
    named = {"ordinal": wrong, "number": _NUMBERS[wrong], "from_side": sides[0]}
    return f"{text} {rng.choice(words['contradiction']['ordinal']).format(**named)}"


def _size(sample: Sample, text: str, words: Words, rng: Rng) -> str | None:
    sizes = _SIZE.findall(sample.phrase)
    if len(sizes) != 1 or sample.meta.get("kind") != "superlative":
        return None
    return f"{text} {rng.choice(words['contradiction']['size']).format(size=_OPPOSITE[sizes[0]])}"


def _extent(sample: Sample, text: str, words: Words, rng: Rng) -> str | None:
    assert sample.box is not None
    assert sample.size is not None
    if sample.box.area > 0.15 * sample.size[0] * sample.size[1]:
        return None
    extent = rng.choice(words["extent"]["words"])
    return f"{text} {rng.choice(words['contradiction']['extent']).format(extent=extent)}"


def _wrong_sides(sample: Sample) -> list[str]:
    """Sides of the picture opposite to those that the box is clearly on."""
    assert sample.box is not None
    assert sample.size is not None
    box, (width, height) = sample.box, sample.size
    across, down = (box.x1 + box.x2) / (2 * width), (box.y1 + box.y2) / (2 * height)
    pairs = ((across, "left", "right"), (down, "top", "bottom"))
    return [low if middle > 0.5 else high for middle, low, high in pairs if abs(middle - 0.5) > _OFF_CENTRE]


_KINDS: Final[Mapping[str, Callable[[Sample, str, Words, Rng], str | None]]] = {
    "side": _side,
    "swapped": _swapped,
    "box": _box,
    "ordinal": _ordinal,
    "size": _size,
    "extent": _extent,
    "none": _none,
}
