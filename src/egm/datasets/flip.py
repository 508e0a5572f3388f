"""Mirrored copies: boxes and pictures about the vertical axis, left and right exchanged in the phrase."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from egm.datasets.dataset import Dataset
from egm.errors import DataError
from egm.types import Sample

_SUFFIX = "/flip"
_OTHER = {"left": "right", "Left": "Right", "LEFT": "RIGHT"} | {"right": "left", "Right": "Left", "RIGHT": "LEFT"}
# A word of its own, or the head of one that says a side: leftmost, right-hand, rightward, and RefCOCO's leftest, righty
# and rightish. Never bright or leftover.
_SIDE = re.compile(rf"\b({'|'.join(_OTHER)})(?=(?i:most|hand|side|wards?|y|ish|i?er|i?est)?\b)")
# Where "right" or "left" is no side, or a direction is told by other words.
_UNSURE = re.compile(
    r"\bright (?:next|behind|beside|above|below|under|beneath|in front|near|by|before|after|up|against|there|here)\b"
    r"|\b(?:all|just|is|are|was|were) (?:right|left) (?:over|of way)\b|\b(?:counter)?clockwise\b|\bo'?clock\b"
    r"|\b(?:l|r|lft|rt|rite|rigth|rihgt|rigt|lefy|letf)\b",
    re.IGNORECASE,
)
# A side glued to other letters, as in bottomleft and rightt; and words that merely hold the letters.
_GLUED = re.compile(r"\w*(?:left|right)\w*", re.IGNORECASE)
_INNOCENT = re.compile(
    r"(?:b|f|up|w|a|al|out|forth|birth|copy|play)right\w*|right(?:s|eous\w*|ful\w*)|leftovers?|cleft\w*",
    re.IGNORECASE,
)


def flip_phrase(phrase: str) -> str:
    """Exchange left and right, in words of their own and in such as `left-most`, `leftmost` and `right hand side`.

    Doing it twice gives the phrase back. Words that merely hold the letters, such as `bright`, stay.

    Example:
        >>> flip_phrase("Left-most cup, right of the bright lamp")
        'Right-most cup, left of the bright lamp'
    """
    return _SIDE.sub(lambda found: _OTHER[found[1]], phrase)


def can_flip(phrase: str) -> bool:
    """Tell whether exchanging words is enough.

    It is not for `right behind`, where no side is meant, nor for `2 o'clock`, where no word tells it; nor where a side
    is misspelt or glued to another word, as in `lft` and `bottomright`, and would stay as it is.
    """
    if _UNSURE.search(phrase):
        return False
    words = (found[0] for found in _GLUED.finditer(phrase))
    return all(_SIDE.match(word) or _INNOCENT.fullmatch(word) for word in words)


def flip_sample(sample: Sample, *, root: Path | None = None) -> Sample:
    """Mirror a sample: picture, box and phrase.

    The rationale is dropped: it speaks of the places of the picture that it was written for.

    Args:
        sample: The sample.
        root: Folder that its image may not leave, for a path.

    Returns:
        A sample whose image is an upright RGB picture in memory. Its id ends in `/flip`; mirroring it again takes that
        off.

    Raises:
        ImageError: If the picture cannot be read, or is of another size than the sample says.

    Example:
        >>> from PIL import Image
        >>> from egm.boxes import Box
        >>> sample = Sample("1", Image.new("RGB", (640, 480)), "the left cup", Box(0, 0, 64, 48))
        >>> mirrored = flip_sample(sample)
        >>> mirrored.phrase, mirrored.box
        ('the right cup', Box(x1=576.0, y1=0.0, x2=640.0, y2=48.0))
    """
    from PIL import ImageOps

    from egm.images import check_picture_size, load_image

    picture = load_image(sample.image, root=root)
    check_picture_size(sample.size, picture.size)
    return dataclasses.replace(_flip_words(sample, picture.width), image=ImageOps.mirror(picture), size=picture.size)


class Flipped(Dataset):
    """The mirrored copies of a dataset's samples, made as they are taken; those whose phrases cannot be are left out.

    Args:
        dataset: The samples.

    Raises:
        DataError: If none can be mirrored.
    """

    names_files = False

    def __init__(self, dataset: Dataset) -> None:
        self._source, samples = dataset, dataset.annotations()
        self._places = [index for index, sample in enumerate(samples) if can_flip(sample.phrase)]
        if not self._places:
            raise DataError(f"dataset {dataset.name} has no phrase that can be mirrored")
        mirrored: Sequence[Sample] = [
            _flip_words(samples[i], None if (size := samples[i].size) is None else size[0]) for i in self._places
        ]
        super().__init__(
            f"{dataset.name}{_SUFFIX}", mirrored, root=dataset.root, kind=dataset.kind, scale=dataset.scale
        )

    def _at(self, index: int) -> Sample:
        return flip_sample(self._source[self._places[index]], root=self._source.root)


def _flip_words(sample: Sample, width: int | None) -> Sample:
    box, boxes = sample.box, sample.boxes
    return dataclasses.replace(
        sample,
        id=sample.id.removesuffix(_SUFFIX) if sample.id.endswith(_SUFFIX) else sample.id + _SUFFIX,
        phrase=flip_phrase(sample.phrase),
        box=None if box is None or width is None else box.mirrored(width),
        boxes=None if boxes is None or width is None else tuple(each.mirrored(width) for each in boxes),
        rationale=None,
        meta={**sample.meta, "flipped": not sample.meta.get("flipped", False)},
    )
