"""The protocol: what the field's clients send is answered, and all else is refused by the name of its field."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from egm._version import __version__
from egm.errors import EgmError
from egm.server.app import build_app

from .serving import Typist, ask, chat, data_url, served

PICTURE = {"type": "image_url", "image_url": {"url": data_url(Image.new("RGB", (32, 32)))}}
CLIENTS = {
    "user": "me",
    "n": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "repetition_penalty": 1.0,
    "logit_bias": None,
    "logprobs": False,
    "top_logprobs": None,
    "stop": None,
    "stream": False,
    "stream_options": None,
    "seed": None,
    "top_p": 1,
    "top_k": -1,
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "metadata": {"a": "b"},
    "store": False,
    "service_tier": "auto",
    "modalities": ["text"],
    "continue_final_message": False,
    "add_generation_prompt": True,
}
"""What clients send without meaning anything by it."""


def with_url(url: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "several answers": ({"n": 2}, "n: this server offers only 1 here"),
    "a penalty": ({"presence_penalty": 0.5}, "presence_penalty: this server offers only 0"),
    "log-probabilities of others": ({"top_logprobs": 2}, "top_logprobs: this server offers only 0"),
    "tools": ({"tools": [{"type": "function"}]}, "tools: this server offers only []"),
    "JSON": ({"response_format": {"type": "json_object"}}, "response_format: this server offers only {'type': 'text'}"),
    "arguments of a template": ({"chat_template_kwargs": {}}, "chat_template_kwargs: Extra inputs"),
    "an unknown field": ({"stpo": "x"}, "stpo: Extra inputs are not permitted"),
    "words for a number": ({"temperature": "hot"}, "temperature: Input should be a valid number"),
    "a temperature": ({"temperature": 300}, "temperature 300.0 is out of range"),
    "a share": ({"temperature": 1, "top_p": 0}, "top_p 0.0 is out of range"),
    "not a number": ({"temperature": float("nan")}, "temperature nan is out of range"),
    "no tokens": ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
    "an empty stop": ({"stop": [""]}, "stop.0: String should have at least 1 character"),
    "many stops": ({"stop": ["a"] * 17}, "stop: List should have at most 16 items"),
    "biases": ({"logit_bias": {"1": -100, "2": -100}}, "logit_bias: only one token can be biased, by -100"),
    "a bias": ({"logit_bias": {"1": 5}}, "logit_bias: only one token"),
    "no messages": ({"messages": []}, "messages: List should have at least 1 item"),
    "a tool's message": ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role: Input should be 'system'"),
    "a number to say": ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content: Input should be a valid"),
    "half a character": (
        {"messages": [{"role": "user", "content": "a \ud800"}]},
        "messages.0.content: half a surrogate pair stands in it",
    ),
    "half a character in a part": (
        {"messages": [{"role": "system", "content": [{"type": "text", "text": "\udfff"}]}]},
        "messages.0.content.0.text: half a surrogate pair",
    ),
    "a video": ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages.0.content.0.type: Input"),
    "an address": (with_url("http://127.0.0.1:9/a.png"), "messages.0.content.0.image_url.url: nothing is fetched"),
    "a safe address": (with_url("https://example.com/a.png"), "messages.0.content.0.image_url.url: nothing is fetched"),
    "a file": (with_url("file:///etc/passwd"), "messages.0.content.0.image_url.url: nothing is fetched"),
    "a path": (with_url("/etc/passwd"), "messages.0.content.0.image_url.url: nothing is fetched"),
    "no base64": (with_url("data:image/png;base64,%%%"), "messages.0.content.0.image_url.url: the picture is not in"),
    "no picture": (with_url("data:image/png;base64,YWJj"), "url: the given byte string is not a picture"),
    "a small picture": (
        with_url(data_url(Image.new("RGB", (4, 40)))),
        "url: the given byte string: 4 x 40 is too",
    ),
    "a picture by the model": (
        {"messages": [{"role": "assistant", "content": [PICTURE]}]},
        "messages.0.content.0.image_url.url: only a user shows pictures",
    ),
    "begun and gone on with": ({"continue_final_message": True}, "add_generation_prompt: an answer is either begun or"),
    "neither": ({"add_generation_prompt": False}, "add_generation_prompt: without it nothing would be answered"),
    "a user's to go on with": (
        {"continue_final_message": True, "add_generation_prompt": False},
        "continue_final_message: the last message must be the assistant's",
    ),
}


def test_what_a_server_says_of_itself(place: str) -> None:
    assert ask(place, "/health")[::2] == (200, {})
    assert ask(place, "/version")[::2] == (200, {"version": __version__})
    [model] = ask(place, "/v1/models")[2]["data"]
    assert (model["id"], model["owned_by"], model["max_model_len"]) == ("typist", "egm", 1_000_000)
    assert ask(place, "/docs")[0] == 404
    assert ask(place, "/v1/chat/completions")[0] == 405


def test_an_answer(place: str, typist: Typist) -> None:
    typist.let()
    status, headers, answer = chat(place, max_tokens=3)
    assert (status, answer["object"], answer["model"]) == (200, "chat.completion", "typist")
    assert answer["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "abc"}, "logprobs": None, "finish_reason": "length"}
    ]
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert "x-egm-warning" not in headers
    assert "warnings" not in answer


def test_fields_that_clients_send_by_default(place: str, typist: Typist) -> None:
    typist.let()
    assert chat(place, max_completion_tokens=2, **CLIENTS)[0] == 200
    parts = [{"type": "text", "text": "Where?"}, {**PICTURE, "image_url": {**PICTURE["image_url"], "detail": "auto"}}]
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts, "name": "me"}]
    turns += [{"role": "assistant", "content": [{"type": "text", "text": "Here."}], "refusal": None}]
    turns += [{"role": "user", "content": "And this?"}]
    assert chat(place, max_tokens=2, messages=turns)[0] == 200


@pytest.fixture(scope="module")
def asked_wrongly() -> dict[str, tuple[int, Any]]:
    """What a server answers to what it does not offer, one after the other; a good request is answered after all."""
    typist = Typist()
    typist.let()
    with served(typist) as (place, _):
        answers = {name: chat(place, **wrong)[::2] for name, (wrong, _) in REFUSED.items()}
        assert chat(place, max_tokens=1)[0] == 200
    assert typist.batches_seen == [["hi"]]
    return answers


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_offered_is_refused_by_field(name: str, asked_wrongly: dict[str, tuple[int, Any]]) -> None:
    status, answer = asked_wrongly[name]
    assert status == 422
    assert REFUSED[name][1] in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"


def test_the_field_is_named_apart(place: str) -> None:
    assert chat(place, n=2)[2]["error"]["param"] == "n"
    assert chat(place, **with_url("http://a"))[2]["error"]["param"] == "messages.0.content.0.image_url.url"


def test_no_json_and_no_such_model(place: str) -> None:
    assert ask(place, "/v1/chat/completions", b"{")[0] == 400
    for unreadable in (b"[" * 100_000, b'{"model": "\xff"}'):
        status, _, answer = ask(place, "/v1/chat/completions", unreadable)
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
        assert "the body cannot be read" in answer["error"]["message"]
    assert ask(place, "/v1/chat/completions", b"{}", headers={"Content-Type": "text/plain"})[0] == 422
    status, _, answer = chat(place, model="other")
    assert (status, answer["error"]["param"]) == (404, "model")
    assert "this server has 'typist'" in answer["error"]["message"]


def test_several_names(typist: Typist) -> None:
    typist.let()
    with served(typist, names=["a/b", "c"]) as (place, _):
        assert [model["id"] for model in ask(place, "/v1/models")[2]["data"]] == ["a/b", "c"]
        assert chat(place, model="c", max_tokens=1)[2]["model"] == "c"
        assert chat(place, model="typist")[0] == 404


def test_what_is_clipped_is_said(typist: Typist) -> None:
    typist.let()
    typist.context = 20
    with served(typist) as (place, _):
        status, headers, answer = chat(place, max_tokens=8192, stop=["f"])
    [said] = answer["warnings"]
    assert status == 200
    assert said == "max_tokens 8192 was clipped to the 13 that a prompt of 7 leaves of the context"
    assert headers["x-egm-warning"] == said
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"], choice["stop_reason"]) == ("abcde", "stop", "f")


def test_what_repeated_itself_was_cut_off_and_that_is_said(place: str, typist: Typist) -> None:
    typist.let()
    typist.finish_reason = "repeated"
    status, headers, answer = chat(place, max_tokens=3)
    assert (status, answer["choices"][0]["finish_reason"]) == (200, "length")
    assert "repeated itself" in headers["x-egm-warning"]


def test_what_the_backend_cannot_do(place: str, typist: Typist) -> None:
    typist.let()
    status, _, answer = chat(place, "odd")
    assert (status, answer["error"]["message"]) == (400, "nothing to say to odd")
    assert ask(place, "/tokenize", {"prompt": "a"})[0] == 501
    assert ask(place, "/tokenize", {"prompt": "\ud800"})[0] == 422
    status, _, answer = chat(place, "broken")
    assert (status, answer["error"]["message"]) == (500, "the backend failed: ZeroDivisionError")
    assert chat(place, max_tokens=1)[0] == 200


def test_a_batch_of_none(typist: Typist) -> None:
    with pytest.raises(EgmError, match="batch_size 0 is out of range"):
        build_app(typist, batch_size=0)
