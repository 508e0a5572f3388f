"""Mirrored copies: twice gives the original, and only sides are exchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from egm.boxes import Box
from egm.datasets import Dataset, Flipped, flip_phrase, flip_sample
from egm.datasets.flip import can_flip
from egm.errors import DataError
from egm.types import Sample

SIDES = st.sampled_from(["left", "right", "Left", "RIGHT", "left-most", "rightmost", "right hand side", "left-hand"])
OTHERS = st.sampled_from(
    ["bright", "leftover", "upright", "cleft", "righteous", "the", "cup", "of", "_left", "straight"]
)


@pytest.mark.parametrize(
    ("phrase", "mirrored"),
    [
        ("left-most cup", "right-most cup"),
        ("LEFTMOST cup", "RIGHTMOST cup"),
        ("on the right hand side", "on the left hand side"),
        ("Right, not left!", "Left, not right!"),
        ("the bright lamp by the leftovers", "the bright lamp by the leftovers"),
        ("upright copyright brightly aleft", "upright copyright brightly aleft"),
        ("lefthand side, rightwards", "righthand side, leftwards"),
        ("left/right", "right/left"),
        ("Leftest cup, righty, rightiest, leftish", "Rightest cup, lefty, leftiest, rightish"),
    ],
)
def test_sides_are_exchanged_and_other_words_stay(phrase: str, mirrored: str) -> None:
    assert flip_phrase(phrase) == mirrored


@given(st.text() | st.lists(SIDES | OTHERS).map(" ".join))
def test_twice_gives_the_phrase_back(phrase: str) -> None:
    assert flip_phrase(flip_phrase(phrase)) == phrase


@pytest.mark.parametrize("phrase", ["the brightest lamp", "upright leftovers", "left-handed man", "Leftmost, far left"])
def test_phrases_that_can_be_mirrored(phrase: str) -> None:
    assert can_flip(phrase)


@given(st.lists(OTHERS).map(" ".join))
def test_without_a_side_nothing_changes(phrase: str) -> None:
    assert flip_phrase(phrase) == phrase


@given(st.lists(SIDES, min_size=1).map(" ".join))
def test_every_side_changes_and_nothing_else(phrase: str) -> None:
    for before, after in zip(phrase.split(), flip_phrase(phrase).split(), strict=True):
        sides = any(side in before.lower() for side in ("left", "right"))
        assert (before != after) == sides


def test_the_box_stays_around_the_same_pixels(tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[5:15, 10:25] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    sample = Sample("one", tmp_path / "a.png", "left cup", Box(10, 5, 25, 15), (60, 40), rationale="At the left.")
    mirrored = flip_sample(sample)
    assert (mirrored.id, mirrored.phrase, mirrored.rationale, mirrored.size) == (
        "one/flip",
        "right cup",
        None,
        (60, 40),
    )
    assert mirrored.box is not None
    x1, y1, x2, y2 = (int(value) for value in mirrored.box)
    found = np.asarray(mirrored.image)
    assert found[y1:y2, x1:x2].min() == 255
    assert found.sum() == pixels.sum()
    again = flip_sample(mirrored)
    assert (again.id, again.phrase, again.box, again.meta["flipped"]) == ("one", "left cup", sample.box, False)
    assert np.array_equal(np.asarray(again.image), pixels)


@pytest.mark.parametrize(
    "phrase",
    [
        "cup right behind the plate",
        "man at 2 o'clock",
        "Right next to the dog",
        "lft cup",  # as RefCOCO has them: exchanging words would leave the old side
        "the rihgt one",
        "bottomright cup",
        "Onleft",
        "rightt",
    ],
)
def test_phrases_where_words_do_not_tell_the_side_are_left_out(phrase: str) -> None:
    assert not can_flip(phrase)
    picture = Image.new("RGB", (60, 40))
    sure = Sample("a", picture, "cup on the right", Box(1, 2, 3, 4), (60, 40))
    unsure = Sample("b", picture, phrase, Box(1, 2, 3, 4), (60, 40))
    data = Flipped(Dataset("set", [unsure, sure]))
    assert [(sample.id, sample.phrase) for sample in data] == [("a/flip", "cup on the left")]
    assert data[0].box == data.annotations()[0].box == Box(57, 2, 59, 4)
    with pytest.raises(DataError, match="no phrase that can be mirrored"):
        Flipped(Dataset("set", [unsure]))
