"""Leaks, and what looks like one: words of the phrase, and things of the scene."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from egm.rationales.candidate import Candidate
from egm.rationales.filters import Leak

Say = Callable[..., Candidate]


@pytest.mark.parametrize(
    "text",
    [
        "The green box shows the dog at the edge of the lawn.",
        "The dog, outlined in red, lies on the lawn.",
        "The dog inside the magenta rectangle is brown.",
        "It is the dog that the green rectangle holds.",
        "The highlighted animal is the only dog.",
        "The bounding box surrounds the dog.",
        "The ground truth is the dog on the lawn.",
        "As the coordinates provided in the prompt say, it is the dog.",
        "The dog is at [62, 62, 219, 250].",
        "The dog reaches from 40 to 140, and from 30 to 120.",
    ],
)
def test_a_leak_is_found_and_quoted(say: Say, text: str) -> None:
    why = Leak().check(say(text))
    assert why is not None
    assert why.startswith(("it tells of the mark: ", "it tells of the prompt: ", "it tells co", "it tells the co"))


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("The man in the green shirt stands beside a box of oranges.", "man in green shirt"),
        ("The bicycle with a red frame leans against the wall.", "red bike"),
        ("The cat is asleep in the green box.", "cat in green box"),
        ("The highlighted page is the second one.", "the highlighted page"),
        ("Given its position by the window, it is the lamp that is meant.", "lamp"),
        ("The mark on the wall is to the left of the dog, its distance 39 against 53.", "the dog"),
        ("A square sign with a white border hangs above the door.", "door"),
    ],
)
def test_what_the_scene_and_the_phrase_hold_is_none(say: Say, text: str, phrase: str) -> None:
    assert Leak().check(say(text, phrase)) is None
