"""An OpenAI-compatible server on this machine that answers by script, and plays what a client must survive."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import struct
import sys
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from PIL import Image

Cut = Literal["reset", "close", "stall"]


@dataclass(frozen=True)
class Play:
    """One reply.

    Attributes:
        pieces: What a stream brings, each a `delta`; joined to one message where the client does not stream.
        finish: The finish reason; None never sends one.
        usage: Tokens, where counted.
        status: With another than 200, `raw` is the body.
        headers: Beside the usual ones.
        raw: A body to send in place of all the above.
        before: What happens instead of a reply.
        after: What happens after the pieces, instead of an end.
        refuses: A word in the request that is answered by 400.
    """

    pieces: tuple[dict[str, Any], ...] = ()
    finish: str | None = "stop"
    usage: dict[str, Any] | None = field(default_factory=lambda: {"prompt_tokens": 7, "completion_tokens": 3})
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    raw: bytes | None = None
    before: Cut | None = None
    after: Cut | None = None
    refuses: str | None = None
    streams: bool = True


def say(*content: str | None, **options: Any) -> Play:
    """Answer with these pieces of content."""
    return Play(tuple({"content": text} for text in content), **options)


def fail(status: int, message: str = "no", *, retry_after: str | None = None) -> Play:
    body = json.dumps({"error": {"message": message, "code": status}}).encode()
    headers = (("Retry-After", retry_after),) if retry_after is not None else ()
    return Play(status=status, raw=body, headers=headers)


class FaultyServer:
    """Serves plays: for each phrase that occurs in a request its own, one after the other, the last one for ever.

    Attributes:
        script: Plays by phrase.
        asked: Every request's JSON, in the order of arrival; but those for tokens, which are in `split`.
        headers: Every request's headers.
        arrived: Set as soon as a request has come.
        tokens: What is said of the tokens of a text; None knows no such question.
        pages: What is said at a path that is fetched, or how that fails; the models, and else nothing.
        fetched: Every path that was fetched, with its headers, whose names are in small letters.
        busiest: Most requests that were under way at once.
    """

    def __init__(self, script: dict[str, list[Play]], *, models: tuple[str, ...] = ("tiny",), port: int = 0) -> None:
        self.script, self.models = script, models
        self.asked: list[dict[str, Any]] = []
        self.split: list[dict[str, Any]] = []
        self.tokens: Any = None
        self.pages: dict[str, Any] = {}
        self.fetched: list[tuple[str, dict[str, str]]] = []
        self.headers: list[dict[str, str]] = []
        self.arrived, self.ended = threading.Event(), threading.Event()
        self.busy = self.busiest = 0
        self.connections: set[socket.socket] = set()
        self.gate: threading.Barrier | None = None
        self._counts: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"home": self})
        self._server = _Server(("127.0.0.1", port), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __enter__(self) -> FaultyServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.ended.set()  # releases what stalls
        self._server.shutdown()
        self._server.server_close()

    def vanish(self) -> None:
        """End as a process that is killed does: nobody listens, and what was connected is cut off."""
        self.__exit__()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def next(self, query: dict[str, Any], headers: dict[str, str]) -> Play:
        text = "\n".join(texts(query))
        with self._lock:
            self.asked.append(query)
            self.headers.append(headers)
            phrase = max((phrase for phrase in self.script if phrase in text), key=len)
            plays = self.script[phrase]
            play = plays[min(self._counts[phrase], len(plays) - 1)]
            if play.refuses is not None and play.refuses in query:
                return fail(400, f"unknown field {play.refuses}")
            self._counts[phrase] += 1
        self.arrived.set()
        return play

    def pictures(self) -> list[tuple[str, Image.Image]]:
        """What was shown, with its media type: decoded here, and only from `data:` URLs."""
        urls = [
            part["image_url"]["url"]
            for query in self.asked
            for message in query["messages"]
            for part in message["content"]
            if part["type"] == "image_url"
        ]
        shown = []
        for url in urls:
            head, _, data = url.partition(";base64,")
            assert head.startswith("data:image/")
            shown.append((head.removeprefix("data:"), Image.open(io.BytesIO(base64.b64decode(data)))))
        return shown


def texts(query: dict[str, Any]) -> list[str]:
    """Every text of a request."""
    contents = [message["content"] for message in query["messages"]]
    parts = [part for content in contents for part in ([{"text": content}] if isinstance(content, str) else content)]
    return [part["text"] for part in parts if "text" in part]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # with the usual 5, many connections at once are reset

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone, also while the next request on its connection was waited for."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    home: FaultyServer

    def setup(self) -> None:
        super().setup()
        self.home.connections.add(self.connection)

    def finish(self) -> None:
        self.home.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self.home.fetched.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        models = {"object": "list", "data": [{"id": name} for name in self.home.models]}
        play = self.home.pages.get(self.path, models if self.path == "/v1/models" else fail(404))
        if isinstance(play, Play):
            self._send(play.status, play.raw or b"", play.headers)
        else:
            self._send(200, json.dumps(play).encode())

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            self.home.split.append(query)
            self._send(404 if self.home.tokens is None else 200, json.dumps(self.home.tokens).encode())
            return
        play = self.home.next(query, dict(self.headers.items()))
        with self.home._lock:
            self.home.busy += 1
            self.home.busiest = max(self.home.busiest, self.home.busy)
        try:
            if self.home.gate is not None:
                self.home.gate.wait(timeout=30)
            self._play(play, streamed=bool(query.get("stream")) and play.streams)
        except OSError:
            self.close_connection = True  # the client has gone
        finally:
            with self.home._lock:
                self.home.busy -= 1

    def _play(self, play: Play, *, streamed: bool) -> None:
        if play.before is not None:
            self._cut(play.before)
        elif play.raw is not None and (play.status != 200 or not streamed):
            self._send(play.status, play.raw, play.headers)
        elif streamed:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            if play.raw is not None:
                self.wfile.write(play.raw)
                return
            for piece in play.pieces:
                self._event({"choices": [{"index": 0, "delta": piece}]})
            if play.after is not None:
                self._cut(play.after)
                return
            if play.finish is not None:
                self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": play.finish}]})
            if play.usage is not None:
                self._event({"choices": [], "usage": play.usage})
            self.wfile.write(b"data: [DONE]\n\n")
        else:
            names = {name for piece in play.pieces for name in piece}
            message = {name: "".join(piece.get(name) or "" for piece in play.pieces) for name in names}
            choice = {"index": 0, "message": message, "finish_reason": play.finish}
            self._send(200, json.dumps({"choices": [choice], "usage": play.usage}).encode())

    def _event(self, value: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()

    def _send(self, status: int, data: bytes, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(data))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _cut(self, how: Cut) -> None:
        self.close_connection = True
        if how == "stall":
            self.home.ended.wait(timeout=60)
        elif how == "reset":  # no lingering: the client's side reads ECONNRESET
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
