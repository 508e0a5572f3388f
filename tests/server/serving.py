"""A server in a thread of the tests, a backend that types as it is let, and what a client needs to ask."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from PIL.Image import Image

from egm.backends import Backend, GenerationSettings, Request
from egm.backends.streaming import watch_rows
from egm.errors import RequestError
from egm.server.app import build_app
from egm.server.connections import Server, make_server
from egm.server.limits import Limits
from egm.server.run import bind
from egm.types import Completion

WAIT = 60.0  # seconds after which a test has failed, however slow the machine


class Typist(Backend):
    """Writes the alphabet, a letter a token, each as soon as it is let; "odd" is not for it, and "broken" breaks it.

    Attributes:
        batches_seen: What was asked together.
        written: Tokens of each request, by its text.
    """

    model = "typist"
    streams = True
    context = 1_000_000

    def __init__(self) -> None:
        self.batches_seen: list[list[str]] = []
        self.written: Counter[str] = Counter()
        self.finish_reason = "length"
        self.width = 1  # how often it repeats a letter
        self._changed = threading.Condition()
        self._keys = 0

    def let(self, keys: int = 1_000_000) -> None:
        """Let it write so many tokens, for each of the requests that it is asked together."""
        with self._changed:
            self._keys += keys
            self._changed.notify_all()

    def reached(self, number: int) -> None:
        """Wait until it has begun so many batches."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.batches_seen) >= number, WAIT)

    def generate(self, requests: Sequence[Request], settings: GenerationSettings) -> list[Completion]:
        asked = [str(request.messages[-1]["content"]) for request in requests]
        with self._changed:
            self.batches_seen.append(asked)
            self._changed.notify_all()
        if "odd" in asked:
            raise RequestError("nothing to say to odd")
        if "broken" in asked:
            raise ZeroDivisionError
        # Its tokens are letters; no listener is told of any that may yet belong to a stop string.
        rows: list[list[int]] = [[] for _ in asked]
        ended = [False] * len(asked)
        watches = watch_rows(requests, settings, self._decode, ())
        for count in range(settings.max_new_tokens):
            with self._changed:
                while not self._keys:
                    # Asked for nothing, it still looks whether it is to end, as one does between two tokens.
                    self._changed.wait(0.01)
                    ended = [own or _is_ended(request) for own, request in zip(ended, requests, strict=True)]
                    if all(ended):
                        break
                self._keys -= bool(self._keys)
            for place, row in enumerate(rows):
                if not ended[place]:
                    row.append(count % 26)
                    self.written[asked[place]] += 1
                    ended[place] = watches[place].take(row[-1:]) is not None
            if all(ended):
                break
        replies = [
            Completion(**watch.finish(row), prompt_tokens=7, completion_tokens=len(row))
            for row, watch in zip(rows, watches, strict=True)
        ]
        return [
            reply if own else replace(reply, finish_reason=self.finish_reason)
            for reply, own in zip(replies, ended, strict=True)
        ]

    def _decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(ord("a") + letter) * self.width for letter in ids)


def _is_ended(request: Request) -> bool:
    return request.on_text is not None and request.on_text("")


@contextmanager
def served(backend: Backend, *, limits: Limits | None = None, **options: Any) -> Iterator[tuple[str, Server]]:
    """Serve a backend; yields host:port and the server, which in the end is told to end, and does."""
    limits = limits or Limits()
    server = make_server(build_app(backend, limits=limits, **options), limits)
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        place = "{}:{}".format(*listener.getsockname())
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield place, server
        finally:
            server.end()
            thread.join(WAIT)
            assert not thread.is_alive()


def ask(
    place: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], Any]:
    """Ask once, on a connection of its own: gives status, headers and what the JSON holds."""
    connection = http.client.HTTPConnection(place, timeout=WAIT)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, {key.lower(): value for key, value in reply.getheaders()}, json.loads(content)


def chat(place: str, text: str = "hi", **more: Any) -> tuple[int, dict[str, str], Any]:
    """Ask for a chat completion."""
    return ask(place, "/v1/chat/completions", question(text, **more))


def question(text: str = "hi", **more: Any) -> dict[str, Any]:
    fields = {"model": "typist", "messages": [{"role": "user", "content": text}], "temperature": 0}
    return {**fields, **more}


def begin(place: str, body: dict[str, Any]) -> socket.socket:
    """Send a request for a chat completion, and give the connection that its answer comes on."""
    connection = send_head(place, "POST /v1/chat/completions HTTP/1.1", length=len(json.dumps(body)))
    connection.sendall(json.dumps(body).encode())
    return connection


def send_head(place: str, line: str, *, length: int) -> socket.socket:
    """Connect, and send the head of a request."""
    host, _, port = place.partition(":")
    connection = socket.create_connection((host, int(port)), timeout=WAIT)
    head = f"{line}\r\nHost: {place}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def until(connection: socket.socket, awaited: bytes) -> bytes:
    """Read until something has come."""
    found = b""
    while awaited not in found:
        piece = connection.recv(65536)
        assert piece, found
        found += piece
    return found


def everything(connection: socket.socket) -> bytes:
    """Read until the other side closes."""
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    connection.close()
    return found


def data_url(image: Image, kind: str = "PNG", **options: Any) -> str:
    image.save(file := io.BytesIO(), kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
