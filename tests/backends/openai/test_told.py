"""What a server writes is told as it comes in, and taken back where it is written anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from egm.backends.base import GenerationSettings, Request
from egm.backends.openai.backend import OpenAIBackend
from egm.backends.openai.pool import ServerPool
from egm.backends.retry import RetryPolicy
from egm.types import Completion

from ..faulty_server import FaultyServer, Play, say

AGAIN = "<again>"
SETTINGS = GenerationSettings(max_new_tokens=64)
KEY = "sk-0123456789abcdef"


def ask(
    plays: Sequence[Play],
    *,
    ends: Callable[[str], bool] = lambda _: False,
    settings: GenerationSettings = SETTINGS,
    early: bool = False,
    **options: Any,
) -> tuple[list[str], Completion]:
    """What a listener was told, and the reply."""
    told: list[str] = []

    def take(piece: str) -> bool:
        told.append(piece)
        return ends("".join(told))

    messages = [{"role": "user", "content": "the cup"}]
    request = Request(messages, on_text=take, on_again=lambda: told.append(AGAIN))
    request = replace(request, cut=lambda _: "\n</think>\n\n[", ends=lambda _: False if early else None)
    with FaultyServer({"the cup": list(plays)}) as server:
        wait = RetryPolicy(retries=2, backoff=0.01)
        with OpenAIBackend(server.url, "tiny", retry=wait, **options) as backend:
            [reply] = backend.generate([request], settings)
    return told, reply


@pytest.mark.parametrize(
    "pieces",
    [
        [{"content": "a "}, {"content": "thought\n</think>\n\n"}, {"content": "[1]"}],
        [{"reasoning_content": "a "}, {"reasoning_content": "thought\n\n"}, {"content": "\n\n["}, {"content": "1]"}],
        [{"reasoning": "a thought"}, {"content": "[1]"}],
    ],
)
def test_pieces_are_the_text(pieces: list[dict[str, Any]]) -> None:
    told, reply = ask([Play(tuple(pieces))])
    assert "".join(told) == reply.text == "a thought\n</think>\n\n[1]"
    assert len([piece for piece in told if piece]) > 1


def test_a_listener_ends_the_answer() -> None:
    told, reply = ask([say("one ", "two ", "three", after="stall")], ends=lambda text: "two" in text)
    assert ("".join(told), reply.text, reply.finish_reason) == ("one two ", "one two ", "stop")


def test_a_try_that_broke_off_is_taken_back() -> None:
    told, reply = ask([say("one ", "t", after="close"), say("three")])
    assert "".join(told) == f"one t{AGAIN}three"
    assert reply.text == "three"


def test_a_text_that_ended_too_early_is_taken_back() -> None:
    with pytest.warns(UserWarning, match="before its answer was there"):
        told, reply = ask([say("half,"), say("whole done")], settings=replace(SETTINGS, stop=(",",)), early=True)
    assert "".join(told).split(AGAIN)[-1] == reply.text == "whole done"


def test_a_budget_is_told_with_what_is_begun_for_the_model() -> None:
    told, reply = ask(
        [say("thinks", finish="length"), say("1", after="close"), say("1, ", "2]")],
        settings=replace(SETTINGS, thinking_budget=8),
    )
    assert "".join(told).split(AGAIN)[-1] == reply.text == "thinks\n</think>\n\n[1, 2]"


def test_nothing_of_a_key_is_told() -> None:
    told, reply = ask([say("it is SK-012345", "6789abcdef", " and sk-0, or s")], api_key=KEY)
    assert "".join(told) == "it is *** and sk-0, or "
    assert reply.text == "it is *** and sk-0, or s"
    assert not any("sk-012" in piece.lower() for piece in told)


def test_what_does_not_stream_tells_nothing() -> None:
    told, reply = ask([say("one ", "two")], stream=False)
    assert (told, reply.text) == ([], "one two")


def test_a_pool_tells_and_takes_back() -> None:
    told: list[str] = []
    request = Request(
        [{"role": "user", "content": "the cup"}],
        on_text=lambda piece: told.append(piece) is not None,
        on_again=lambda: told.append(AGAIN),
    )
    with FaultyServer({"the cup": [say("a", after="close"), say("right")]}) as server:
        wait = RetryPolicy(retries=2, backoff=0.01)
        with ServerPool([server.url], retry=wait) as pool:
            assert pool.streams
            [reply] = pool.generate([request], SETTINGS)
    assert "".join(told) == f"a{AGAIN}right"
    assert reply.text == "right"
