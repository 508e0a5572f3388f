"""Streams: pieces as they are written, an end that says why, and no more work once nobody listens."""

from __future__ import annotations

import json
from typing import Any

from egm.backends import ScriptedBackend
from egm.server.limits import Limits

from .serving import Typist, begin, chat, everything, question, served, until


def events(content: bytes) -> list[Any]:
    body = b"".join(piece for piece in content.partition(b"\r\n\r\n")[2].split(b"\r\n") if piece.startswith(b"data"))
    lines = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def stream(place: str, **more: Any) -> list[Any]:
    connection = begin(place, question(stream=True, **more))
    found = b""
    while not found.endswith(b"0\r\n\r\n"):
        piece = connection.recv(65536)
        assert piece, found
        found += piece
    connection.close()
    return events(found)


def text_of(found: list[Any]) -> str:
    choices = [choice for event in found if isinstance(event, dict) for choice in event.get("choices", [])]
    return "".join(choice["delta"].get("content", "") for choice in choices)


def test_a_stream_is_what_the_whole_answer_is(place: str, typist: Typist) -> None:
    typist.let()
    first, *pieces, last, done = stream(place, max_tokens=4)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [piece["choices"][0]["delta"] for piece in pieces] == [{"content": letter} for letter in "abcd"]
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "length")
    assert done == "[DONE]"
    assert len({event["id"] for event in (first, *pieces, last)}) == 1
    assert chat(place, max_tokens=4)[2]["choices"][0]["message"]["content"] == text_of(pieces)


def test_usage_comes_where_it_was_asked_for(place: str, typist: Typist) -> None:
    typist.let()
    *_, last, usage, done = stream(place, max_tokens=4, stream_options={"include_usage": True})
    assert (usage["choices"], usage["usage"]["completion_tokens"], done) == ([], 4, "[DONE]")
    assert "warnings" not in last


def test_a_stop_that_comes_in_pieces(place: str, typist: Typist) -> None:
    typist.let()
    found = stream(place, max_tokens=1000, stop=["cX", "def"])
    assert text_of(found) == "abc"
    end = found[-2]["choices"][0]
    assert (end["finish_reason"], end["stop_reason"]) == ("stop", "def")
    assert all("stop_reason" not in event["choices"][0] for event in found[:-2])
    assert typist.written["hi"] == 6


def test_what_cannot_stream_sends_one_piece() -> None:
    with served(ScriptedBackend(["a whole answer END and more"])) as (place, _):
        name = ScriptedBackend([""]).model
        found = stream(place, model=name, stop=["END"])
    assert [event["choices"][0]["delta"].get("content") for event in found[:-1]] == ["", "a whole answer ", None]


def test_an_error_before_the_first_token_is_a_status(place: str, typist: Typist) -> None:
    typist.let()
    assert chat(place, "odd", stream=True)[0] == 400


def test_work_stops_when_a_stream_is_cancelled(place: str, typist: Typist) -> None:
    """By what the backend wrote: it is let write three tokens, and the rest only once the next request has begun."""
    connection = begin(place, question("cancelled", stream=True, max_tokens=100_000))
    typist.reached(1)
    typist.let(3)
    until(connection, b'"c"')
    connection.close()
    other = begin(place, question("next", max_tokens=2))
    typist.reached(2)
    typist.let()
    until(other, b'"ab"')
    other.close()
    assert typist.written == {"cancelled": 3, "next": 2}


def test_work_stops_when_a_whole_answer_is_no_longer_waited_for(place: str, typist: Typist) -> None:
    running = begin(place, question("running", max_tokens=100_000))
    typist.reached(1)
    waiting = begin(place, question("waiting", max_tokens=2, temperature=1))
    for connection in (waiting, running):
        connection.close()
    last = begin(place, question("last", max_tokens=2))
    typist.reached(2)
    typist.let()
    until(last, b'"ab"')
    last.close()
    assert typist.written == {"last": 2} or typist.written == {"waiting": 2, "last": 2}
    assert "running" not in typist.written


def test_a_request_that_takes_too_long_is_given_up(typist: Typist) -> None:
    with served(typist, limits=Limits(request_seconds=0.2)) as (place, _):
        status, _, answer = chat(place, "slow", max_tokens=100_000)
        assert (status, answer["error"]["message"]) == (504, "no answer within 0.2 seconds")
        connection = begin(place, question("stream", stream=True, max_tokens=100_000))
        typist.reached(2)
        typist.let(1)
        until(connection, b"no answer within")
        connection.close()
    assert typist.written == {"stream": 1}


def test_what_runs_is_finished_when_the_server_is_told_to_end(typist: Typist) -> None:
    with served(typist) as (place, server):
        connection = begin(place, question(stream=True, max_tokens=4))
        typist.reached(1)
        server.end()
        typist.let()
        assert text_of(events(everything(connection))) == "abcd"


def test_what_does_not_finish_is_given_up(typist: Typist) -> None:
    with served(typist, limits=Limits(grace_seconds=0.2)) as (place, server):
        running = begin(place, question("running", max_tokens=100_000))
        typist.reached(1)
        waiting = begin(place, question("waiting", max_tokens=1, temperature=1))
        server.end()
        assert b"503 Service Unavailable" in everything(running)
        everything(waiting)
    assert typist.written == {}
