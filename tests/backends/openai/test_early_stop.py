"""Stop strings on a server: sent, asked again where they ended a thought, and left out where they are not taken."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from egm.backends import GenerationSettings
from egm.backends.openai.early_stop import cost_of_both
from egm.backends.retry import RetryPolicy
from egm.boxes import Box
from egm.grounder import Grounder
from egm.types import Completion, Failure, Grounding

from ..faulty_server import FaultyServer, Play, fail, say

PICTURE = Image.new("RGB", (100, 100))
CUT = 'So.\n</think>\n\n```json\n[\n\t{"bbox_2d": [0, 0, 500, 1000], '
WHOLE = CUT + '"label": "x"}\n]\n```'
BOX = Box(0, 0, 50, 100)
DRAFT = 'It may be [{"bbox_2d": [0, 0, 9, 9], '


def ask(*plays: Play, stream: bool = True, **options: Any) -> tuple[Grounding, list[dict[str, Any]]]:
    options.setdefault("retry", RetryPolicy(retries=0))
    with (
        FaultyServer({"": list(plays)}) as server,
        Grounder.connect(server.url, "tiny", cut_tail=True, stream=stream, **options) as subject,
    ):
        return subject.ground(PICTURE, "x"), server.asked


@pytest.mark.parametrize("stream", [True, False])
def test_the_stop_string_is_sent_and_the_box_is_read(stream: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result, asked = ask(say(CUT), stream=stream)
    assert [query["stop"] for query in asked] == [['"label"']]
    assert (result.box, result.tail_cut, result.repairs, result.tokens) == (BOX, True, (), 3)
    assert result.text == CUT


def test_a_server_that_leaves_the_stop_string_in_the_text() -> None:
    result, asked = ask(say(CUT + '"label"'))
    assert (result.box, result.tail_cut, result.repairs, len(asked)) == (BOX, True, (), 1)
    assert result.text == CUT


def test_a_parsed_reasoning_is_one_too() -> None:
    parts = Play(({"reasoning_content": "So."}, {"content": CUT.partition("</think>\n\n")[2]}))
    result, _ = ask(parts)
    assert (result.box, result.tail_cut, result.reasoning) == (BOX, True, "So.")


@pytest.mark.parametrize(
    "first",
    [say(DRAFT), Play(({"reasoning": DRAFT},)), say("</think> [{"), say('</think> [{"bbox_2d": [9, 9, 9, 9], ')],
)
def test_a_text_that_ended_before_its_answer_is_asked_for_again_and_both_count(first: Play) -> None:
    with pytest.warns(UserWarning, match=r"ended a text at \"label\" before its answer.*--cut-tail"):
        result, (once, again) = ask(first, say(WHOLE))
    assert once.pop("stop") == ['"label"']
    assert once == again
    assert (result.box, result.tail_cut, result.tokens) == (BOX, False, 6)


def test_an_answer_that_ended_by_itself_is_asked_for_once() -> None:
    for text, failure in ((WHOLE, None), ("</think> There is no such thing.", Failure.REFUSED)):
        result, asked = ask(say(text))
        assert (result.failure, result.tail_cut, len(asked)) == (failure, False, 1)


@pytest.mark.parametrize(("name", "asked"), [("stop_reason", 2), ("matched_stop", 2), ("other", 1)])
@pytest.mark.parametrize("stream", [True, False])
def test_a_server_that_says_where_it_stopped_is_believed(name: str, asked: int, stream: bool) -> None:
    """vLLM and SGLang name the stop string, so that words which only look finished are known not to be."""
    choice = {"index": 0, "finish_reason": "stop", name: '"label"'}
    message = {"content": "</think> The "}
    body = b"data: %s\n\ndata: [DONE]\n\n" if stream else b"%s"
    part = {"delta": message} if stream else {"message": message}
    first = Play(raw=body % json.dumps({"choices": [{**choice, **part}]}).encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result, queries = ask(first, say(WHOLE), stream=stream)
    assert len(queries) == asked
    assert result.failure == (None if asked == 2 else Failure.NO_BOX)


@pytest.mark.parametrize(
    "refusal",
    [
        Play(status=500, raw=b"Internal Server Error"),
        fail(400, "unknown field stop"),
        Play(raw=b'data: {"error": "no attribute get_vocab"}\n\n'),
    ],
)
def test_a_server_that_fails_at_stop_strings_is_asked_without_from_then_on(refusal: Play) -> None:
    with FaultyServer({"": [refusal, say(WHOLE)]}) as server:
        subject = Grounder.connect(server.url, "tiny", cut_tail=True, retry=RetryPolicy(retries=0))
        with subject, pytest.warns(UserWarning, match=r"fails at stop strings.*--cut-tail"):
            results = [subject.ground(PICTURE, "x") for _ in range(2)]
        assert [query.get("stop") for query in server.asked] == [['"label"'], None, None]
    assert [(result.box, result.tail_cut) for result in results] == [(BOX, False)] * 2


def test_one_that_has_taken_them_is_not_asked_without_for_a_failure() -> None:
    quick = RetryPolicy(retries=1, backoff=0.0)
    with FaultyServer({"": [say(CUT), fail(500), say(CUT)]}) as server:
        with Grounder.connect(server.url, "tiny", cut_tail=True, retry=quick) as subject:
            results = [subject.ground(PICTURE, "x") for _ in range(2)]
        assert ["stop" in query for query in server.asked] == [True] * 3
    assert [result.tail_cut for result in results] == [True, True]


def test_after_a_thinking_budget_the_begun_answer_ends_at_its_box() -> None:
    budget = GenerationSettings(max_new_tokens=50, thinking_budget=3)
    result, (first, second) = ask(say("It is", finish="length"), say("0, 0, 500, 1000], "), settings=budget)
    assert first["stop"] == second["stop"] == ['"label"']
    assert second["continue_final_message"] is True
    assert (result.box, result.tail_cut, result.tokens) == (BOX, True, 6)
    early, asked = ask(say(CUT), settings=replace(budget, temperature=0.5))
    assert (early.box, early.tail_cut, len(asked)) == (BOX, True, 1)


def test_two_requests_for_one_text_keep_what_their_failed_tries_took() -> None:
    cost = cost_of_both(Completion("a", lost_tokens=(3, 1)), Completion("b", lost_tokens=(2, 2)))
    assert cost["lost_tokens"] == (5, 3)
