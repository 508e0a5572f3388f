"""Where a reply's text may be, and what it is where there is none: an answer, a refusal, or the server's fault."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image

from egm.backends import GenerationSettings, Request
from egm.backends.openai.backend import OpenAIBackend
from egm.backends.retry import RetryPolicy
from egm.boxes import Box
from egm.codecs import get_codec
from egm.errors import BackendError
from egm.grounder import Grounder
from egm.types import Completion, Failure

from ..faulty_server import FaultyServer, Play, fail, say

PICTURE = Image.new("RGB", (64, 32), "teal")
BOX = Box(0, 0, 32, 16)
ANSWER = '[{"bbox_2d": [0, 0, 500, 500]}]'
THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "It is there."}]}
FAST = RetryPolicy(retries=2, backoff=0.001, most=0.002)


def reply_to(play: Any, tokens: int = 50) -> Completion:
    with FaultyServer({"": [play]}) as server, OpenAIBackend(server.url, "tiny", retry=FAST) as backend:
        request = Request(get_codec("qwen3_vl").messages("x"), [PICTURE])
        return backend.generate([request], GenerationSettings(max_new_tokens=tokens))[0]


def whole(message: dict[str, Any], finish: str | None = "stop", tokens: int = 9) -> Play:
    value = {"choices": [{"message": message, "finish_reason": finish}], "usage": {"completion_tokens": tokens}}
    return Play(raw=json.dumps(value).encode(), streams=False)


SHAPES = {
    "parts": [THOUGHT, {"type": "text", "text": ANSWER}],
    "text parts": [{"type": "text", "text": "It is there.</think>"}, {"type": "text", "text": ANSWER}],
    "output text": [{"type": "reasoning", "text": "It is there."}, {"type": "output_text", "text": ANSWER}],
    "strings": ["It is there.</think>", ANSWER],
    "one part": {"type": "text", "text": "It is there.</think>" + ANSWER},
}


@pytest.mark.parametrize("content", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("streams", [True, False])
def test_text_in_parts_is_joined(content: Any, streams: bool) -> None:
    play = Play(({"content": content},)) if streams else whole({"content": content})
    with FaultyServer({"": [play]}) as server:
        grounding = Grounder.connect(server.url).ground(PICTURE, "the cup")
    assert (grounding.box, grounding.reasoning) == (BOX, "It is there.")


def test_the_text_of_a_completion() -> None:
    value = {"choices": [{"text": f"There.</think>{ANSWER}", "finish_reason": "stop"}]}
    assert reply_to(Play(raw=json.dumps(value).encode(), streams=False)).text == f"There.</think>{ANSWER}"


@pytest.mark.parametrize("words", ["I cannot help with that.", "Against the policy.", "No [1, 2, 3, 4]."])
@pytest.mark.parametrize("codec", ["qwen3_vl", "qwen3_vl_instruct", "internvl"])
@pytest.mark.parametrize("place", ["field", "part", "after a thought"])
def test_a_refusal_apart_from_the_answer_is_one(words: str, codec: str, place: str) -> None:
    message: dict[str, Any] = {"content": None, "refusal": words}
    if place == "part":
        message = {"content": [{"type": "refusal", "refusal": words}]}
    elif place == "after a thought":
        message["reasoning_content"] = "It is there."
    with FaultyServer({"": [whole(message)]}) as server, Grounder.connect(server.url, codec=codec) as grounder:
        grounding = grounder.ground(PICTURE, "the cup")
    assert grounding.failure is Failure.REFUSED
    assert words in grounding.text


CALL = [{"type": "function", "function": {"name": "zoom", "arguments": "{}"}}]
FAULTS = {
    "tool call": (whole({"content": None, "tool_calls": CALL}, "tool_calls"), "calls a tool"),
    "filter": (whole({"content": ""}, "content_filter"), "content filter"),
    "tokens without text": (whole({"content": None}), "no text, though 9 tokens"),
    "blank": (whole({"content": " "}), "no text, though 9 tokens"),
    "no message": (whole({}), "no text, though 9 tokens"),
    "a picture": (whole({"content": [{"type": "image_url", "image_url": {}}]}), "part of type 'image_url'"),
    "a number": (whole({"content": 7}), "holds no text"),
    "HTML": (Play(raw=b"<html><body>Sign in</body></html>", streams=False), "not JSON, but"),
    "no choices": (Play(raw=b'{"choices": []}', streams=False), "without a finish reason"),
}


@pytest.mark.parametrize(("play", "words"), FAULTS.values(), ids=FAULTS)
def test_a_reply_without_text_is_the_servers_fault(play: Play, words: str) -> None:
    with pytest.raises(BackendError, match="broken reply .*" + words):
        reply_to(play)


def test_a_cut_off_thought_without_text_stays_the_models() -> None:
    assert reply_to(whole({"content": ""}, "length")).text == ""


ERRORS = {
    "error": {"error": {"message": "context too long: 9000 > 8192", "code": 400}},
    "object": {"object": "error", "message": "context too long: 9000 > 8192", "code": 400},
    "text": {"error": {"message": "context too long: 9000 > 8192", "code": "400"}, "choices": None},
    "in the choice": {"choices": [{"error": {"message": "context too long: 9000 > 8192", "code": 400}}]},
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_an_error_with_status_200_keeps_its_words_and_is_not_asked_again(error: Any) -> None:
    with FaultyServer({"": [Play(raw=json.dumps(error).encode(), streams=False)]}) as server:
        with pytest.raises(BackendError, match="the server failed: context too long: 9000 > 8192"):
            Grounder.connect(server.url, retry=FAST).ground(PICTURE, "the cup")
        assert len(server.asked) == 1


def test_an_error_with_status_200_that_may_pass_is_asked_again() -> None:
    busy = Play(raw=b'{"error": {"message": "overloaded", "code": 503}}', streams=False)
    with FaultyServer({"": [busy, say("</think>" + ANSWER)]}) as server:
        assert Grounder.connect(server.url, retry=FAST).ground(PICTURE, "the cup").box == BOX


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0, "reasoning_tokens": 0}])
def test_what_is_not_counted_is_unknown(usage: Any) -> None:
    reply = reply_to(say("It is.</think>" + ANSWER, usage=usage))
    assert (reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens) == (None, None, None)


def test_no_reasoning_tokens_is_no_count() -> None:
    """SGLang says 0 where it does not parse the reasoning."""
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 0}}
    assert reply_to(say("It is.</think>" + ANSWER, usage=usage)).reasoning_tokens is None


@pytest.mark.parametrize("streams", [True, False])
def test_a_reply_without_end_is_given_up_once(streams: bool) -> None:
    piece = "word " * 20_000
    play = say(*[piece] * 60, streams=streams)
    with FaultyServer({"": [play]}) as server:
        with pytest.raises(BackendError, match="it is longer than"):
            Grounder.connect(server.url, settings=GenerationSettings(max_new_tokens=64)).ground(PICTURE, "the cup")
        assert len(server.asked) == 1


def test_a_long_answer_within_the_tokens_is_read() -> None:
    assert len(reply_to(say("word " * 20_000), tokens=20_000).text) == 100_000


def test_no_redirect_is_followed() -> None:
    with FaultyServer({"": [say("</think>" + ANSWER)]}) as elsewhere:
        away = Play(status=307, raw=b"", headers=(("Location", elsewhere.url + "/v1/chat/completions"),))
        with FaultyServer({"": [away]}) as server, pytest.raises(BackendError, match=r"HTTP 307: .*not followed"):
            Grounder.connect(server.url, "tiny").ground(PICTURE, "the cup")
        assert elsewhere.asked == []


def test_an_unreadable_status_is_one_line() -> None:
    with FaultyServer({"": [fail(403, "no\nway")]}) as server, pytest.raises(BackendError, match="HTTP 403: no way"):
        Grounder.connect(server.url, retry=FAST).ground(PICTURE, "the cup")
