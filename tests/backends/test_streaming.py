"""Text as it is written: every engine in this process tells it, and ends an answer where it is told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egm.backends import Backend, GenerationSettings, Request
from egm.backends.checkpoint import find_checkpoint
from egm.backends.numpy.backend import NumpyBackend
from egm.backends.streaming import TextPieces
from egm.errors import RequestError

SETTINGS = GenerationSettings(max_new_tokens=20)
KINDS = ("numpy", "decoder", "generate")


@pytest.fixture(scope="module", params=KINDS)
def backend(request: pytest.FixtureRequest, tiny_folder: Path) -> Backend:
    if request.param == "numpy":
        return NumpyBackend(find_checkpoint(tiny_folder))
    from egm.backends.transformers import TransformersBackend

    return TransformersBackend.load(tiny_folder, device="cpu", fast=request.param == "decoder")


def told(request: Request, ends: Callable[[int], bool] = lambda _: False) -> tuple[Request, list[str]]:
    """A request that keeps what it is told, and ends by how many pieces it has."""
    pieces: list[str] = []

    def take(piece: str) -> bool:
        pieces.append(piece)
        return ends(len(pieces))

    return replace(request, on_text=take), pieces


def test_pieces_are_the_text(backend: Backend, requests_: list[Request]) -> None:
    assert backend.streams
    alone = backend.generate(requests_[:2], SETTINGS)
    asked = [told(request) for request in requests_[:2]]
    replies = backend.generate([request for request, _ in asked], SETTINGS)
    assert [reply.text for reply in replies] == [reply.text for reply in alone]
    for (_, pieces), reply in zip(asked, replies, strict=True):
        assert reply.text.startswith("".join(pieces))
        assert len([piece for piece in pieces if piece]) > 5


def test_one_that_is_ended_costs_no_more_and_leaves_its_neighbours_alone(
    backend: Backend, requests_: list[Request]
) -> None:
    alone = backend.generate(requests_[:3], SETTINGS)
    ended, pieces = told(requests_[1], lambda count: count == 4)
    replies = backend.generate([requests_[0], ended, requests_[2]], SETTINGS)
    assert (replies[1].completion_tokens, replies[1].finish_reason, len(pieces)) == (4, "stop", 4)
    assert alone[1].text.startswith(replies[1].text)
    assert [replies[0].text, replies[2].text] == [alone[0].text, alone[2].text]
    assert replies[0].completion_tokens == 20


def test_what_all_end_is_over_at_once(backend: Backend, requests_: list[Request]) -> None:
    asked = [told(request, lambda _: True)[0] for request in requests_[:2]]
    replies = backend.generate(asked, replace(SETTINGS, max_new_tokens=4000))
    assert [reply.completion_tokens for reply in replies] == [1, 1]


def test_a_banned_token_is_never_chosen(backend: Backend, requests_: list[Request]) -> None:
    [free] = backend.generate(requests_[:1], replace(SETTINGS, max_new_tokens=1))
    [first] = backend.tokenize(free.text) or []
    banned = replace(requests_[0], banned_token=first)
    replies = backend.generate([banned, requests_[1]], replace(SETTINGS, max_new_tokens=1))
    assert replies[0].text != free.text
    assert replies[1].text == backend.generate(requests_[1:2], replace(SETTINGS, max_new_tokens=1))[0].text


def test_an_answer_goes_on_where_it_was_begun(backend: Backend, requests_: list[Request]) -> None:
    request = requests_[0]
    turns = [*request.messages, {"role": "assistant", "content": "It is here.\n</think>\n\n[{ "}]
    asked = backend.prompt(request.messages)  # type: ignore[attr-defined]
    begun = backend.prompt(turns, continue_final_message=True)  # type: ignore[attr-defined]
    assert begun == asked + "It is here.\n</think>\n\n[{ "
    goes_on = replace(request, messages=turns, continue_final_message=True)
    [reply] = backend.generate([goes_on], SETTINGS)
    [plain] = backend.generate([request], SETTINGS)
    assert reply.prompt_tokens is not None
    assert plain.prompt_tokens is not None
    assert reply.prompt_tokens > plain.prompt_tokens


def test_turns_that_a_template_refuses(backend: Backend, requests_: list[Request]) -> None:
    odd = replace(requests_[0], messages=[*requests_[0].messages, {"role": "tool", "content": "a"}])
    with pytest.raises(RequestError, match="the chat template refuses: the role tool cannot stand here"):
        backend.generate([odd], SETTINGS)


@settings(max_examples=40)
@given(st.text(max_size=12), st.integers(1, 4))
def test_whole_characters_come_as_soon_as_they_are_there(text: str, step: int) -> None:
    data = list(text.replace("\ufffd", "").encode())
    pieces = TextPieces(lambda ids: bytes(ids).decode(errors="replace"))
    told = ""
    for start in range(0, len(data), step):
        told += pieces.add(data[start : start + step])
        assert bytes(data[: start + step]).decode(errors="ignore").startswith(told)
    assert told == text.replace("\ufffd", "")
