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


def choices(*given: tuple[dict[str, Any], str], **fields: Any) -> Play:
    """A whole reply of these choices, each with its fields and text."""
    listed = [{"finish_reason": "stop", "message": {"content": text}, **more} for more, text in given]
    return Play(raw=json.dumps({"choices": listed, **fields}).encode(), streams=False)


def stream(*chunks: Play) -> Play:
    return Play(raw=b"".join(b"data: " + (chunk.raw or b"") + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n")


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
    "tool call beside a word": (whole({"content": "Zooming.", "tool_calls": CALL}, "tool_calls"), "calls a tool"),
    "tool call that ends by itself": (whole({"content": "Zooming.", "tool_calls": CALL}), "calls a tool"),
    "filter after a word": (whole({"content": "It is"}, "content_filter"), "content filter"),
    "Gemini's filter": (whole({"content": "It is"}, "content_filter: SAFETY"), "content filter"),
    "SAFETY": (whole({"content": "It is"}, "SAFETY"), "content filter"),
    "given up": (whole({"content": "It is"}, "Cancelled"), "gave it up"),
    "two choices": (choices(({}, ANSWER), ({}, "[]")), "2 choices"),
    "two choices numbered 0": (choices(({"index": 0}, ANSWER), ({"index": 0}, "[]")), "2 choices"),
    "two choices in a stream": (stream(choices(({}, "It"), ({}, "is"))), "2 choices"),
    "more after the end": (stream(choices(({}, ANSWER)), choices(({"finish_reason": None}, "!"))), "goes on after"),
    "two replies mixed": (stream(*(choices(({"finish_reason": None}, ANSWER), id=name) for name in "ABA")), "mixed"),
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


@pytest.mark.parametrize("names", ["AAA", "ABC", "AAB", ["", "A", "A"], [None, "A", "A"]])
def test_the_names_of_pieces_that_belong_together(names: Any) -> None:
    """Old llama.cpp and gateways name each piece anew."""
    ends = [None, None, "stop"]
    pieces = zip(names, ends, strict=True)
    play = stream(*(choices(({"finish_reason": end, "index": 0}, "[]"), id=name) for name, end in pieces))
    assert reply_to(play).text == "[][][]"


def test_another_choice_than_the_first_is_left_aside() -> None:
    assert reply_to(choices(({"index": 1}, "[]"), ({"index": 0}, ANSWER))).text == ANSWER


PAGE = "<html>\r\n<head><title>502 Bad Gateway</title></head>\n<body><h1>502 Bad Gateway</h1><hr>nginx</body></html>"
ERROR_TEXTS = [
    (PAGE, 9),
    ("<!DOCTYPE html>\n" + PAGE.replace("<title>", '<meta charset="x"><title lang="en">'), None),
    ("<html><body><h1>Service Unavailable</h1></body></html>", None),
    ('{"error":{"message":"CUDA out of memory"}}', 9),
    ('{"error": "CUDA out of memory. Tried to allocate 2 GiB"}', None),
    ('{"object": "error", "message": "the engine is dead", "code": 500}', 9),
    ('{"detail": "Internal Server Error"}', None),
    ("Internal Server Error", None),
    ("Rate limit reached for tiny in organization x", None),
    ("HTTP/1.1 503 Service Unavailable", None),
    ("504: Gateway Time-out.", None),
    ("torch.OutOfMemoryError: CUDA out of memory.", None),
    ("upstream connect error or disconnect/reset before headers", None),
]


@pytest.mark.parametrize(("text", "tokens"), ERROR_TEXTS)
def test_an_error_in_the_place_of_an_answer_is_one(text: str, tokens: int | None) -> None:
    with pytest.raises(BackendError, match="after 3 tries: the server failed: "):
        reply_to(say(text, usage={"completion_tokens": tokens}))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Internal Server Error", 3),  # counted, so a model wrote it: what the screen shows
        ("Internal Server Error [0, 0, 500, 500]", None),
        ("It says 502 Bad Gateway.", None),
        ('{"error": "there is no such object"}', None),
        ('{"error": null, "bbox_2d": [0, 0, 500, 500]}', None),
        ('{"bbox_2d": [0, 0, 500, 500], "error": {"message": "none"}}', None),
        ("<html><body><p>A page.</p></body></html>", None),
        ("<html><head><title>A cup</title></head></html>", None),
        ("{" * 3000, None),
        ("<html>" + "<b>" * 30_000, None),
    ],
)
def test_what_a_model_may_write_is_an_answer(text: str, tokens: int | None) -> None:
    assert reply_to(say(text, usage={"completion_tokens": tokens}), tokens=9_000).text == text


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length", "FINISH_REASON_MAX_TOKENS"])
def test_the_token_limit_under_any_name(reason: str) -> None:
    reply = reply_to(say("It is", finish=reason))
    assert reply.finish_reason == "length"
    for text in (reply.text, "It is.</think>["):
        grounding = get_codec("qwen3_vl").parse(text, size=(64, 32), finish_reason=reason)
        assert grounding.failure is Failure.TRUNCATED


@pytest.mark.parametrize("reason", ["stop", "STOP", "eos", "end_turn"])
def test_an_end_under_any_name(reason: str) -> None:
    assert reply_to(say("It is", finish=reason)).finish_reason == "stop"


LOGPROBS: dict[str, tuple[Any, float | None, float | None]] = {
    "all": ([-1.0, -1.0, -0.5], -2.5 / 3, -0.5),
    "none of one": ([None, -1.0, -0.5], None, -0.5),
    "none of the answer": ([-1.0, -1.0, None], None, None),
    "words": ([-1.0, -1.0, "much"], None, None),
    "without end": ([-1.0, -1.0, float("-inf")], None, None),
}


@pytest.mark.parametrize(("values", "logprob", "answer"), LOGPROBS.values(), ids=LOGPROBS)
def test_a_log_probability_that_is_not_told_is_unknown(
    values: list[Any], logprob: float | None, answer: float | None
) -> None:
    tokens = [{"token": token, "logprob": value} for token, value in zip(["It", "</think>", "[]"], values, strict=True)]
    reply = reply_to(choices(({"logprobs": {"content": tokens}}, "It</think>[]")))
    assert (reply.logprob, reply.answer_logprob) == (logprob, answer)
    assert reply.answer_tokens == (() if answer is None else (("[]", answer),))


@pytest.mark.parametrize("logprobs", [[{"logprob": None}], 7, {"content": 7}, {"content": [None]}, {"tokens": ["a"]}])
def test_log_probabilities_in_no_known_form_cost_no_answer(logprobs: Any) -> None:
    reply = reply_to(choices(({"logprobs": logprobs}, ANSWER)))
    assert (reply.text, reply.logprob) == (ANSWER, None)


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
