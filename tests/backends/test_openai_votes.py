"""Votes, budgets and log-probabilities of a server."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from egm.backends import GenerationSettings
from egm.boxes import Box
from egm.errors import BackendError
from egm.grounder import Grounder

_server = runpy.run_path(str(Path(__file__).with_name("faulty_server.py")))
FaultyServer, Play, fail, say = (_server[name] for name in ("FaultyServer", "Play", "fail", "say"))

PICTURE = Image.new("RGB", (100, 100))
BUDGET = GenerationSettings(max_new_tokens=50, thinking_budget=3)


def box(x2: int) -> Any:
    return say(f'</think> [{{"bbox_2d": [0, 0, {x2}, 1000]}}]')


def test_each_vote_is_a_request_with_a_seed_of_its_own() -> None:
    settings = GenerationSettings(temperature=0.6, votes=8, stop_confidence=0.9)
    with FaultyServer({"": [box(900)]}) as server:
        result = Grounder.connect(server.url, "tiny", settings=settings).ground(PICTURE, "x")
        again = Grounder.connect(server.url, "tiny", settings=settings).ground(PICTURE, "x")
        seeds = [query["seed"] for query in server.asked]
    assert (result.box, result.votes, result.confidence, result.tokens) == (Box(0, 0, 90, 100), 3, 1.0, 9)
    assert again.box == result.box
    assert len(set(seeds)) == 3
    assert sorted(seeds[:3]) == sorted(seeds[3:])


def test_one_failed_vote_fails_the_question() -> None:
    settings = GenerationSettings(temperature=0.6, votes=3)
    with FaultyServer({"": [fail(400)]}) as server:
        subject = Grounder.connect(server.url, "tiny", settings=settings)
        (result,) = subject.ground_each([(PICTURE, "x")])
    assert isinstance(result, BackendError)


def test_a_budget_goes_on_with_the_begun_answer() -> None:
    plays = [say("It is \n", finish="length"), say('0, 0, 500, 1000], "label": "x"}]')]
    with FaultyServer({"": plays}) as server:
        subject = Grounder.connect(server.url, "tiny", settings=BUDGET)
        result = subject.ground(PICTURE, "x")
        first, second = server.asked
    assert (result.box, result.reasoning, result.tokens) == (Box(0, 0, 50, 100), "It is", 6)
    assert (first["max_tokens"], second["max_tokens"]) == (3, 47)
    assert "continue_final_message" not in first
    assert (second["continue_final_message"], second["add_generation_prompt"]) == (True, False)
    assert second["messages"][-1] == {
        "role": "assistant",
        "content": 'It is \n</think>\n\n```json\n[\n\t{"bbox_2d": [',
    }


def test_what_ends_in_time_is_asked_once() -> None:
    with FaultyServer({"": [box(500)]}) as server:
        assert Grounder.connect(server.url, "tiny", settings=BUDGET).ground(PICTURE, "x").box == Box(0, 0, 50, 100)
        assert len(server.asked) == 1


def test_an_answer_that_began_in_time_is_finished_as_it_is() -> None:
    plays = [say('So.\n</think> [{"bbox_2d": [0, ', finish="length"), say("0, 500, 1000]}]")]
    with FaultyServer({"": plays}) as server:
        result = Grounder.connect(server.url, "tiny", settings=BUDGET).ground(PICTURE, "x")
    assert result.text == 'So.\n</think> [{"bbox_2d": [0, 0, 500, 1000]}]'


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (fail(422, "unexpected field"), "HTTP 422.*continue_final_message: vLLM, SGLang"),
        (say("It is there.\n</think> [1, 2, 3, 4]"), "began a new answer instead of going on"),
    ],
)
def test_a_server_that_cannot_go_on(second: Any, message: str) -> None:
    with FaultyServer({"": [say("It is", finish="length"), second]}) as server:
        subject = Grounder.connect(server.url, "tiny", settings=BUDGET)
        with pytest.raises(BackendError, match=message):
            subject.ground(PICTURE, "x")


def test_logprobs_are_asked_for_and_read() -> None:
    tokens = [("I", -3.0), ("</think>", -1.0), ("[", -0.5), ("1]", -0.25)]
    raw = {
        "choices": [
            {
                "index": 0,
                "message": {"content": "".join(token for token, _ in tokens)},
                "finish_reason": "stop",
                "logprobs": {"content": [{"token": token, "logprob": value} for token, value in tokens]},
            }
        ]
    }
    with FaultyServer({"": [Play(raw=json.dumps(raw).encode(), streams=False)]}) as server:
        result = Grounder.connect(server.url, "tiny", logprobs=True).ground(PICTURE, "x")
        plain = Grounder.connect(server.url, "tiny").ground(PICTURE, "x")
        assert [query.get("logprobs") for query in server.asked] == [True, None]
    assert (result.logprob, result.answer_logprob) == (-4.75 / 4, -0.375)
    assert plain.logprob == result.logprob  # told unasked
