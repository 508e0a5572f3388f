"""Filters that look at the text alone: failures, language, length, repetition; and any text at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egm.boxes import Box
from egm.rationales.candidate import Candidate
from egm.rationales.filters import Language, Length, RepeatedWords, TeacherFailure, build_filters, default_recipe
from egm.types import Completion, Sample

Say = Callable[..., Candidate]
GOOD = "The brown dog lies on the lawn, apart from the cat, and no other animal has a collar."


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "nothing is said: ''"),
        ("N/A", "nothing is said: 'N/A'"),
        ("12 30", "there are no words: '12 30'"),
        ("Analysis failed: timeout", "an error: 'Analysis failed'"),
        ("I'm sorry, but I can't help with that.", 'a refusal: "I\'m sorry"'),
        ('<tool_call>{"name": "zoom"}', "a call or code: "),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "dog"}]', "a call or code: "),
    ],
)
def test_what_explains_nothing_is_a_failure(say: Say, text: str, what: str) -> None:
    why = TeacherFailure().check(say(text))
    assert why is not None
    assert why.startswith(what)


def test_a_text_that_was_cut_off_is_a_failure(say: Say) -> None:
    whole = replace(say(GOOD), completion=Completion(GOOD))
    assert TeacherFailure().check(whole) is None
    cut = replace(whole, completion=Completion(GOOD, finish_reason="length"))
    assert TeacherFailure().check(cut) == "the teacher was cut off at its token limit"


@pytest.mark.parametrize(
    ("text", "phrase", "keeps"),
    [
        (GOOD, "the dog", True),
        ("Der braune Hund liegt auf der Wiese und ist nicht bei der Katze.", "the dog", False),
        ("Der braune Hund liegt auf der Wiese und ist nicht bei der Katze.", "der Hund auf der Wiese", True),
        (GOOD, "der Hund, der auf der Wiese liegt", False),
        ("草地上的棕色的狗。", "the dog", False),
        ("草地上的棕色的狗。", "草地上的狗", True),
        (GOOD, "草地上的狗", False),
        ('The sign with "出口停车场" hangs above the door.', "the sign", True),
        ("The dog of Señor Díaz and of Zoë is at the café.", "the dog", True),
    ],
)
def test_the_language_is_the_phrases(say: Say, text: str, phrase: str, keeps: bool) -> None:
    assert (Language().check(say(text, phrase)) is None) == keeps


def test_a_language_can_be_stated(say: Say) -> None:
    text = "Der braune Hund liegt auf der Wiese und ist nicht bei der Katze."
    assert Language(expected="de").check(say(text, "Hund links")) is None
    assert Language().check(say(text, "Hund links")) is not None


def test_words_are_counted(say: Say) -> None:
    length = Length(least=3, most=4)
    assert [length.check(say(text)) is None for text in ("a b", "a b c", "a b c d", "a b c d e")] == [
        False,
        True,
        True,
        False,
    ]
    assert length.check(say("草地上的狗狗")) is None  # six characters are three words


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        (GOOD, True),
        (f"{GOOD} {GOOD} {GOOD}", False),
        ("It is a very very very very old dog.", False),
        ("It is a very, very old dog on a lawn.", True),
        ("It is the dog it is the dog it is the dog.", False),
        ("So it is. So it is. So it is.", False),
        ("The dogs: (1,2,3,4) left; (1,2,9,9) left; (1,1,1,1) left; (1,1,1,1) left.", True),
    ],
)
def test_loops_are_found(say: Say, text: str, keeps: bool) -> None:
    assert (RepeatedWords().check(say(text)) is None) == keeps


def everything(text: str, phrase: str = "the dog") -> Iterator[str | None]:
    sample = Sample("1", "a.png", phrase, box=Box(40, 30, 140, 120), size=(640, 480))
    recipe = {name: options for name, options in default_recipe("official").items() if name != "near_duplicate"}
    for each in build_filters(recipe):
        yield each.check(Candidate(sample, text, "official"))


_PIECES = st.sampled_from(
    [
        "the",
        " left ",
        "box",
        "(1,2,",
        "not",
        ".",
        "is",
        "so it",
        "I can",
        "\n",
        '"',
        "[",
        "12",
        "é",
        "的",
        "\ud800",
        "\x00",
    ]
)


@given(st.one_of(st.text(), st.lists(_PIECES).map("".join)), st.text(max_size=30))
def test_any_text_is_judged_and_none_raises(text: str, phrase: str) -> None:
    for why in everything(text, phrase):
        assert why is None or (why and "\n" not in why)


@pytest.mark.parametrize(
    "piece",
    [
        "the ",
        " ",
        "\n",
        "(",
        "(1, ",
        "1,",
        "is not ",
        "no object ",
        "the red box ",
        "in the left ",
        "I ",
        '"',
        "Error",
        "x",
        "_",
    ],
)
def test_a_long_text_takes_no_longer_than_its_length(piece: str) -> None:
    """A pattern that is not linear would need minutes here."""
    for _ in everything(piece * (20_000 // len(piece))):
        pass
