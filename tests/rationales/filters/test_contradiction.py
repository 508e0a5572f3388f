"""Contradictions of the conclusion, and sentences about other objects that are none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from egm.boxes import Box
from egm.codecs import get_codec
from egm.rationales.candidate import Candidate
from egm.rationales.filters import Contradiction

Say = Callable[..., Candidate]


@pytest.mark.parametrize(
    ("text", "phrase", "why"),
    [
        ("The dog sleeps. So it is the one on the right.", "the dog", "the box is not there: 'on the right'"),
        (
            "The dog is in the bottom left corner of the picture.",
            "dog",
            "the box is not there: 'in the bottom left corner",
        ),
        ("So it is the rightmost of them all.", "the dog", "the box is not there: 'rightmost of them all'"),
        ("So it is (600,600,900,900).", "the dog", "its box is another one: '600,600,900,900'"),
        ("So it is 3 (600,600,900,900).", "the dog", "its box is another one: '600,600,900,900'"),
        ("There is no such animal in the image.", "the dog", "it says that there is none"),
        ("None of the dogs is visible.", "the dog", "it says that there is none"),
        ("So it is the third from the left.", "second dog from the left", "it counts otherwise than the phrase"),
        ("So it is the largest one.", "the smallest dog", "its size is the opposite of the phrase's: 'largest'"),
        ("The dog takes up most of the picture.", "the dog", "the box is 3% of the picture"),
    ],
)
def test_a_wrong_conclusion_is_found(say: Say, text: str, phrase: str, why: str) -> None:
    found = Contradiction().check(say(text, phrase))
    assert found is not None
    assert found.startswith(why)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("So it is the dog at the top left.", "the dog"),
        ("The dog is left of the cat on the right.", "the dog"),
        (
            "Of the 2 dogs, only one is above the cat at the bottom right, so it is the brown dog on the left.",
            "the dog",
        ),
        ("The other dog is on the right. So it is this one.", "the dog"),
        ("The cat at the bottom right is not a dog. So it is the dog on the left.", "the dog"),
        ("There is no other dog with a collar, and no other object hides it.", "dog with collar"),
        ("The dog holds the stick in its right paw.", "the dog"),
        ("The dog is at the bottom of the stairs.", "the dog"),
        ("The only dog is at (600,600,900,900). So it is (63,63,219,250).", "the dog"),
        ("So it is (40, 30, 140, 120).", "the dog"),
        ("1 (600,600,900,900) cat; 2 (63,63,219,250) dog. So it is 2 (63,63,219,250).", "the dog"),
        ("Of 1, 2 and 3 it is 3 (63, 63, 219, 250).", "the dog"),
        ("So it is 2: from (63, 63) to (219, 250).", "the dog"),
        ("So it is the second from the left.", "second dog from the left"),
        ("The clock shows 12, 3, 6 and 9.", "the clock"),
        ("So it is the man on the right.", "the man on the right"),
    ],
)
def test_what_is_said_of_others_or_is_true_is_none(say: Say, text: str, phrase: str) -> None:
    box = Box(400, 30, 500, 120) if phrase == "the man on the right" else None
    assert Contradiction().check(say(text, phrase, box)) is None


def test_a_side_that_the_phrase_names_may_be_meant_among_others(say: Say) -> None:
    left_of_two = Box(400, 200, 470, 300)
    assert Contradiction().check(say("So it is the dog on the left.", "left dog", left_of_two)) is None
    far = Box(560, 200, 630, 300)
    assert Contradiction().check(say("It is on the left side of the image.", "left dog", far)) is not None


def test_coordinates_are_those_of_the_codec(say: Say) -> None:
    plain = say("So it is (600,600,900,900).", box=Box(384, 288, 576, 432))
    assert Contradiction().check(plain) is None
    pixels = Candidate(plain.sample, plain.text, plain.style, codec=get_codec("qwen2_5_vl"))
    assert Contradiction().check(pixels) is not None
