"""Votes, budgets and log-probabilities of a server."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from PIL import Image

from egm.backends import GenerationSettings
from egm.boxes import Box
from egm.errors import BackendError
from egm.grounder import Grounder

from ..faulty_server import FaultyServer, Play, fail, say

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


def told(*tokens: tuple[str, float], finish: str = "stop") -> Play:
    message = {"role": "assistant", "content": "".join(token for token, _ in tokens)}
    content = [{"token": token, "logprob": value} for token, value in tokens]
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": {"content": content}}
    body = {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": len(tokens)}}
    return Play(raw=json.dumps(body).encode(), streams=False)


def test_the_boxes_behind_a_begun_answer_are_as_sure_as_their_own_tokens() -> None:
    first = told(("It ", -5.0), ("is", -5.0), ("\n", -5.0), finish="length")
    second = told(
        ('[{"bbox_2d": [', -3.0),
        ("0, 0, 250, 1000", -0.1),
        ('], "label": "x"}, {"bbox_2d": [', -3.0),
        ("500, 0, 750, 1000", -0.7),
        ('], "label": "y"}]', -3.0),
    )
    begun = told(('It</think>[{"bbox_2d": [0, ', -5.0), ("0", -0.4), (", 2", -0.2), finish="length")
    rest = told(("50, 1000", -0.6), ('], "label": "x"}]', -3.0))
    for plays, sure in (((first, second), (-0.1, -0.7)), ((begun, rest), ((-5.0 - 0.4 - 0.2 - 0.6) / 4,))):
        with FaultyServer({"": [*plays]}) as server:
            subject = Grounder.connect(server.url, "tiny", settings=BUDGET, logprobs=True)
            boxes = subject.ground(PICTURE, "x", expect="all").boxes
        assert [each.confidence for each in boxes] == [pytest.approx(math.exp(mean)) for mean in sure]


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
    "second",
    [
        say("it is there.\n</think>\n\n", '[{"bbox_2d": [0, 0, 500, 1000]}]'),
        # The same where the server parts it.
        Play(({"reasoning_content": "it is there."}, {"content": '[{"bbox_2d": [0, 0, 500, 1000]}]'})),
    ],
)
def test_an_answer_after_a_second_close_is_read(second: Any) -> None:
    with FaultyServer({"": [say("It is", finish="length"), second]}) as server:
        subject = Grounder.connect(server.url, "tiny", settings=BUDGET)
        with pytest.warns(UserWarning, match=r"closed its reasoning a second time.*continue_final_message"):
            result = subject.ground(PICTURE, "x")
    assert (result.box, result.failure, result.tokens) == (Box(0, 0, 50, 100), None, 6)
    assert result.text.count("</think>") == 2


def test_a_server_that_tells_its_tokens_is_not_to_close_again() -> None:
    plays = [say("It is", finish="length"), say("0, 0, 500, 1000]}]")] * 2
    with FaultyServer({"": plays}) as server:
        server.tokens = {"count": 1, "max_model_len": 99, "tokens": [77]}
        subject = Grounder.connect(server.url, "tiny", settings=BUDGET)
        boxes = [subject.ground(PICTURE, "x").box for _ in range(2)]
        assert [query.get("logit_bias") for query in server.asked] == [None, {"77": -100}] * 2
        assert server.split == [{"model": "tiny", "prompt": "</think>", "add_special_tokens": False}]
    assert boxes == [Box(0, 0, 50, 100)] * 2


@pytest.mark.parametrize("tokens", [None, {"tokens": [7, 8]}, {"tokens": []}, {"tokens": ["7"]}, [7], "7"])
def test_nothing_is_barred_where_the_closing_token_is_not_known(tokens: Any) -> None:
    with FaultyServer({"": [say("It is", finish="length"), say("0, 0, 500, 1000]}]")]}) as server:
        server.tokens = tokens
        assert Grounder.connect(server.url, "tiny", settings=BUDGET).ground(PICTURE, "x").box == Box(0, 0, 50, 100)
        assert not any("logit_bias" in query for query in server.asked)


def test_without_a_budget_nobody_asks_for_tokens() -> None:
    with FaultyServer({"": [box(500)]}) as server:
        server.tokens = {"tokens": [77]}
        Grounder.connect(server.url, "tiny").ground(PICTURE, "x")
        assert (server.split, "logit_bias" in server.asked[0]) == ([], False)


def test_a_server_that_bars_nothing_is_asked_without() -> None:
    second = say("0, 0, 500, 1000]}]", refuses="logit_bias")
    with FaultyServer({"": [say("It is", finish="length"), second]}) as server:
        server.tokens = {"tokens": [77]}
        assert Grounder.connect(server.url, "tiny", settings=BUDGET).ground(PICTURE, "x").box == Box(0, 0, 50, 100)
        assert ["logit_bias" in query for query in server.asked] == [False, True, False]


def test_a_server_that_cannot_go_on() -> None:
    with FaultyServer({"": [say("It is", finish="length"), fail(422, "unexpected field")]}) as server:
        subject = Grounder.connect(server.url, "tiny", settings=BUDGET)
        with pytest.raises(BackendError, match=r"HTTP 422.*continue_final_message: vLLM, SGLang"):
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
