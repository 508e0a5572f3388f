"""Limits: bodies, pictures, the queue, connections, and clients that are slow."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from egm.errors import EgmError
from egm.server.limits import Limits

from .serving import WAIT, Typist, ask, begin, chat, data_url, everything, question, send_head, served, until

POST = "POST /v1/chat/completions HTTP/1.1"


def picture(width: int = 64) -> dict[str, object]:
    part = {"type": "image_url", "image_url": {"url": data_url(Image.new("RGB", (width, 64)))}}
    return {"messages": [{"role": "user", "content": [part]}]}


def test_a_body_that_is_too_large(typist: Typist) -> None:
    typist.let()
    with served(typist, limits=Limits(body_bytes=1000)) as (place, _):
        assert chat(place, "a" * 500, max_tokens=1)[0] == 200
        status, _, answer = chat(place, "a" * 1000)
        assert (status, answer["error"]["message"]) == (
            413,
            "the body is over the limit of 1000 bytes: send smaller pictures",
        )
        lengthless = f"{POST}\r\nTransfer-Encoding: chunked\r\nHost: a\r\nContent-Type: application/json\r\n\r\n"
        connection = send_head(place, "GET /health HTTP/1.1", length=0)
        until(connection, b"{}")
        connection.sendall(lengthless.encode())
        for _ in range(20):
            connection.sendall(b"64\r\n" + b"a" * 100 + b"\r\n")
        until(connection, b"HTTP/1.1 413 ")
        connection.close()
        assert chat(place, max_tokens=1)[0] == 200


def test_a_body_that_drips(typist: Typist) -> None:
    typist.let()
    with served(typist, limits=Limits(body_seconds=0.3, head_seconds=0.3)) as (place, _):
        connection = send_head(place, POST, length=1000)
        connection.sendall(b"{")
        answer = everything(connection)  # and the connection is closed, though the rest never came
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"the body did not come within 0.3 seconds" in answer
        assert chat(place, max_tokens=1)[0] == 200


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat"])
def test_a_head_that_does_not_come(typist: Typist, sent: bytes) -> None:
    typist.let()
    with served(typist, limits=Limits(head_seconds=0.3)) as (place, _):
        connection = send_head(place, "GET /health HTTP/1.1", length=0)
        until(connection, b"{}")
        connection.sendall(sent)
        everything(connection)
        assert chat(place, max_tokens=1)[0] == 200


def test_too_many_connections(typist: Typist) -> None:
    with served(typist, limits=Limits(connections=2)) as (place, _):
        held = [begin(place, question(text, max_tokens=1)) for text in "ab"]
        typist.reached(1)
        status, headers, answer = ask(place, "/health")
        assert (status, headers["retry-after"]) == (503, "1")
        assert "2 connections are open" in answer["error"]["message"]
        typist.let()
        for connection in held:
            until(connection, b'"a"')
            connection.close()


def test_a_full_queue(typist: Typist) -> None:
    with served(typist, limits=Limits(queue=1), batch_size=1) as (place, server):
        held = [begin(place, question("running", max_tokens=1))]
        typist.reached(1)
        held.append(begin(place, question("waiting", max_tokens=1)))
        status, headers = 200, dict[str, str]()
        while status == 200:  # until the one that waits has come in; what is answered 200 says that it is well
            status, headers, _ = ask(place, "/health") if _waits(server) == 0 else chat(place, "more")
        assert (status, headers["retry-after"]) == (429, "1")
        typist.let()
        for connection in held:
            until(connection, b'"a"')
            connection.close()
    assert typist.batches_seen == [["running"], ["waiting"]]


def _waits(server: object) -> int:
    return len(server.config.app.state.scheduler._waiting)  # type: ignore[attr-defined]


def test_a_text_that_is_longer_than_any_context(typist: Typist) -> None:
    typist.let()
    typist.context = 10
    with served(typist) as (place, _):
        assert chat(place, "a" * 1281)[0] == 400
        assert ask(place, "/tokenize", {"prompt": "a" * 1281})[0] == 400
        assert chat(place, "a" * 1280, max_tokens=1)[0] == 200


def test_pictures_that_are_too_many_pixels_together(typist: Typist) -> None:
    with served(typist, limits=Limits(held_pixels=100 * 64)) as (place, _):
        held = begin(place, question(max_tokens=1, **picture(64)))
        typist.reached(1)
        status, _, answer = chat(place, **picture(64))
        assert status == 429
        assert "hold 4096 pixels, and 6400 are the limit" in answer["error"]["message"]
        typist.let()
        until(held, b'"a"')
        held.close()
        assert chat(place, max_tokens=1, **picture(100))[0] == 200


def test_a_request_whose_pictures_are_too_large(typist: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egm.server.messages.MAX_PIXELS", 6000)
    with served(typist) as (place, _):
        fields = picture(64)
        fields["messages"][0]["content"] *= 2  # type: ignore[index]
        status, _, answer = chat(place, **fields)
    assert (status, answer["error"]["param"]) == (422, "messages.0.content.1.image_url.url")


def test_bodies_that_are_too_many_bytes_together(typist: Typist) -> None:
    with served(typist, limits=Limits(held_bytes=2000)) as (place, _):
        held = begin(place, question("a" * 1500, max_tokens=1))
        typist.reached(1)
        assert chat(place, "b" * 1500)[0] == 429
        typist.let()
        until(held, b'"a"')
        held.close()
        assert chat(place, "c" * 1500, max_tokens=1)[0] == 200


def test_one_that_does_not_take_its_answer_in(typist: Typist) -> None:
    """Its connection is closed, and the backend goes on to the next."""
    typist.width = 20_000
    typist.let()
    with served(typist, limits=Limits(send_seconds=0.3)) as (place, _):
        connection = send_head(place, POST, length=len(json.dumps(question("deaf", stream=True, max_tokens=999_000))))
        connection.sendall(json.dumps(question("deaf", stream=True, max_tokens=999_000)).encode())
        typist.reached(1)
        assert chat(place, "next", max_tokens=1)[0] == 200
        connection.close()
    assert 0 < typist.written["deaf"] < 999_000
    assert typist.written["next"] == 1


@pytest.mark.parametrize("name", ["queue", "connections", "body_bytes", "request_seconds"])
def test_limits_under_which_nothing_could_be_answered(name: str) -> None:
    with pytest.raises(EgmError, match=f"limit {name} 0 is out of range"):
        Limits(**{name: 0})
    assert Limits(grace_seconds=0).grace_seconds == 0
    assert Limits().head_seconds < WAIT
