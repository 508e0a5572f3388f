"""Stop strings: every engine in this process ends a text at the same token, and only where the request lets it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egm.backends import GenerationSettings, Request, ScriptedBackend
from egm.backends.checkpoint import find_checkpoint
from egm.backends.numpy.backend import NumpyBackend
from egm.backends.stopping import StopStrings
from egm.backends.streaming import watch_rows
from egm.backends.transformers import TransformersBackend
from egm.errors import EgmError
from egm.types import STOP_STRING, Completion

SETTINGS = GenerationSettings(max_new_tokens=24)


@pytest.fixture(scope="module", params=["numpy", "own decoder", "generate"])
def engine(request: pytest.FixtureRequest, tiny_folder: Path) -> NumpyBackend | TransformersBackend:
    if request.param == "numpy":
        return NumpyBackend(find_checkpoint(tiny_folder))
    return TransformersBackend.load(tiny_folder, device="cpu", fast=request.param == "own decoder")


@pytest.fixture(scope="module")
def whole(tiny_folder: Path, requests_: list[Request]) -> list[Completion]:
    return NumpyBackend(find_checkpoint(tiny_folder)).generate(requests_, SETTINGS)


def inside(text: str) -> str:
    """Three characters from the middle of a text; the text of a random model is any."""
    return text[len(text) // 2 :][:3]


def test_a_text_ends_before_its_stop_string_and_costs_the_tokens_up_to_it(
    engine: NumpyBackend | TransformersBackend, requests_: list[Request], whole: list[Completion]
) -> None:
    stops = tuple(inside(reply.text) for reply in whole[:2])  # the first two end early, the others perhaps
    replies = engine.generate(requests_, replace(SETTINGS, stop=stops))
    for reply, free in zip(replies, whole, strict=True):
        at = min((free.text.find(stop) for stop in stops if stop in free.text), default=-1)
        if at < 0:
            assert (reply.text, reply.finish_reason) == (free.text, free.finish_reason)
            continue
        assert (reply.text, reply.finish_reason) == (free.text[:at], STOP_STRING)
        assert reply.stop_reason in stops
        assert reply.completion_tokens is not None
        assert reply.completion_tokens < SETTINGS.max_new_tokens
    assert [reply.finish_reason for reply in replies[:2]] == [STOP_STRING] * 2
    count = replies[0].completion_tokens
    assert count is not None
    [shorter] = engine.generate(requests_[:1], replace(SETTINGS, stop=stops, max_new_tokens=count - 1))
    assert shorter.finish_reason == "length"  # the stop string was not whole before


def test_the_request_says_which_occurrence_counts(
    engine: NumpyBackend | TransformersBackend, requests_: list[Request], whole: list[Completion]
) -> None:
    stop = whole[0].text[0]
    places = [at for at in range(len(whole[0].text)) if whole[0].text.startswith(stop, at)]
    asked: list[str] = []

    def ends(text: str) -> bool | None:
        asked.append(text)
        return True if len(text) == places[-1] else None

    [reply] = engine.generate([replace(requests_[0], ends=ends)], replace(SETTINGS, stop=(stop,)))
    assert (reply.text, reply.finish_reason) == (whole[0].text[: places[-1]], STOP_STRING)
    assert set(asked) == {whole[0].text[:at] for at in places}
    [reply] = engine.generate([replace(requests_[0], ends=lambda _: False)], replace(SETTINGS, stop=(stop,)))
    assert (reply.text, reply.completion_tokens) == (whole[0].text, whole[0].completion_tokens)


def test_beside_a_thinking_budget(
    engine: NumpyBackend | TransformersBackend, requests_: list[Request], whole: list[Completion]
) -> None:
    asked = replace(requests_[0], cut=lambda _: " so: [12", ends=lambda text: "so:" in text)
    [reply] = engine.generate([asked], replace(SETTINGS, thinking_budget=3, stop=("[",)))
    assert (reply.text[-5:], reply.finish_reason) == (" so: ", STOP_STRING)


def test_scripted_texts_end_as_well() -> None:
    backend = ScriptedBackend(["one two label three"] * 2)
    [reply] = backend.generate([Request([])], replace(SETTINGS, stop=("label",)))
    assert (reply.text, reply.finish_reason, reply.completion_tokens) == ("one two ", STOP_STRING, 2)
    assert reply.stop_reason == "label"
    [reply] = backend.generate([Request([], ends=lambda _: None)], replace(SETTINGS, stop=("label",)))
    assert (reply.text, reply.finish_reason) == ("one two label three", "stop")


@pytest.mark.parametrize("steps", [1, 3, 8, 100])
def test_however_often_one_looks_the_end_is_the_same(steps: int) -> None:
    """Tokens of one byte, so that a stop string spans many of them, and a character several."""
    text = "ein Körper „Kör“ per".encode()

    def decode(ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    kept = GenerationSettings(stop=("Kör“",))  # its last character has three bytes
    for end_tokens, expected in (((), text.index("Kör“".encode()) + 7), ((0x20,), None)):
        told: list[str] = []
        for request in (Request([]), Request([], on_text=lambda piece: told.append(piece) is not None)):  # noqa: B023
            [watch] = watch_rows([request], kept, decode, end_tokens)
            ends = [watch.take(list(text[start : start + steps])) for start in range(0, len(text), steps)]
            assert watch.end == expected
            assert ends[-1] == expected
        assert "".join(told) == ("ein" if expected is None else "ein Körper „")


def test_only_when_a_stop_string_may_end_is_anything_decoded() -> None:
    lengths: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        lengths.append(len(ids))
        return "".join("ab."[token] for token in ids)

    [watch] = watch_rows([Request([])], GenerationSettings(stop=("b.",)), decode, ())
    watch.take([0, 1] * 5000)
    assert lengths == [1, 1]  # each kind of token once
    assert watch.take([2]) == 10_001
    row, ended = [0, 1] * 5000 + [2], {"text": "ab" * 4999 + "a", "finish_reason": STOP_STRING, "stop_reason": "b."}
    assert watch.finish(row) == ended
    # A row that its own limit cut off before, while others went on.
    assert watch.finish(row[:-3]) == {"text": "ab" * 4999, "finish_reason": "repeated"}


LETTERS = st.text("ab", max_size=12)


@settings(max_examples=100)
@given(LETTERS, st.lists(st.text("ab", min_size=1, max_size=3), max_size=3), st.integers(1, 5), st.integers(0, 4))
def test_the_text_ends_before_the_first_stop_however_it_comes(
    text: str, stops: list[str], step: int, least: int
) -> None:
    """A stop string ends the text if at least so many characters stand before it."""
    subject, shown = StopStrings(stops, lambda before: len(before) >= least), ""
    for start in range(0, len(text), step):
        shown += subject.add(text[start : start + step])
        assert text.startswith(shown)
    # The first to be whole in what has come ends it: one that is found in the same piece may begin earlier.
    places = [place for stop in stops if (place := text.find(stop, least)) >= 0]
    assert (subject.found is not None) == bool(places)
    if subject.found is None:
        assert subject.text == text
        held = text.removeprefix(shown)
        assert not held or any(stop.startswith(held) for stop in stops)
    else:
        assert subject.text == shown
        assert len(shown) >= least
        assert text.startswith(shown + subject.found)
        assert not any(shown.find(stop, least) >= 0 for stop in stops)


@pytest.mark.parametrize("stop", ["label", ("",), (1,), 5])
def test_stop_strings_must_be_texts(stop: object) -> None:
    with pytest.raises(EgmError, match="stop must be a list of texts"):
        GenerationSettings(stop=stop)  # type: ignore[arg-type]
