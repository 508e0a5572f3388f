"""A backend behind the OpenAI protocol on this machine, streamed or whole, as far as the doctor asks."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image, ImageOps

from egm.backends import GenerationSettings, Request
from egm.backends.base import Backend
from egm.types import Completion

Fields = Callable[[Completion], dict[str, Any]]


@contextmanager
def served(
    backend: Backend,
    *,
    name: str | None = None,
    fields: Fields = lambda reply: {"content": reply.text},
    turn: bool = True,
    whole: Callable[[Completion], Completion] = lambda reply: reply,
    logprobs: bool = False,
) -> Iterator[str]:
    """Serve a backend; yields its URL.

    Args:
        backend: What answers.
        name: What the model is called.
        fields: The message that holds a reply.
        turn: Whether EXIF turns pictures.
        whole: What is done to replies that are not streamed.
        logprobs: Whether log-probabilities are told, all of a reply's the same, or refused.
    """
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            models = {"data": [{"id": name or backend.model, "owned_by": "test"}]}
            self.send(200 if self.path == "/v1/models" else 404, models)

        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if query.get("logprobs") and not logprobs:
                self.send(422, {"error": {"message": "logprobs: unknown field"}})
                return
            with lock:
                settings = GenerationSettings(max_new_tokens=query["max_tokens"])
                (reply,) = backend.generate([read(query["messages"], turn=turn)], settings)
            streamed = bool(query.get("stream"))
            reply = reply if streamed else whole(reply)
            usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
            choice: dict[str, Any] = {"index": 0, "finish_reason": reply.finish_reason}
            if query.get("logprobs") and reply.logprob is not None:
                choice["logprobs"] = {"content": [{"token": reply.text, "logprob": reply.logprob}]}
            message = {"role": "assistant", **fields(reply)}
            if not streamed:
                self.send(200, {"choices": [{**choice, "message": message}], "usage": usage})
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            for event in ({"choices": [{**choice, "delta": message}]}, {"choices": [], "usage": usage}):
                self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            self.wfile.write(b"data: [DONE]\n\n")

        def send(self, status: int, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def read(messages: list[dict[str, Any]], *, turn: bool) -> Request:
    """Read a request as an engine does."""
    images, turns = [], []
    for message in messages:
        parts = []
        for part in message["content"]:
            if part["type"] == "text":
                parts.append(part)
                continue
            data = base64.b64decode(part["image_url"]["url"].partition(";base64,")[2])
            image = Image.open(io.BytesIO(data))
            images.append((ImageOps.exif_transpose(image) if turn else image).convert("RGB"))
            parts.append({"type": "image"})
        turns.append({"role": message["role"], "content": parts})
    return Request(turns, images)
