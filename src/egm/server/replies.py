"""Answers as the OpenAI protocol has them, whole or as server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

from egm.server.protocol import ChatRequest
from egm.types import STOP_STRING, Completion

WARNING: Final = "X-EGM-Warning"
"""The header that says what of a request was not done as asked."""
DONE: Final = b"data: [DONE]\n\n"
_GOES_ON: Final[Mapping[str, Any]] = {"finish_reason": None}


class Answer:
    """The form of one answer.

    Args:
        body: What was asked.
        context: Most tokens of a prompt and its answer together.
    """

    def __init__(self, body: ChatRequest, context: int) -> None:
        self._body, self._context, self._start = body, context, time.monotonic()
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}

    def known_warnings(self) -> list[str]:
        """Say before anything is generated what will not be done as asked."""
        asked = self._body.asked_tokens
        if asked is None or asked <= self._context:
            return []
        return [f"max_tokens {asked} is more than the context of {self._context}: clipped to what the prompt leaves"]

    def warnings(self, reply: Completion) -> list[str]:
        """Say of a finished answer what was not done as asked."""
        asked, prompt = self._body.asked_tokens, reply.prompt_tokens
        found = self.known_warnings()
        if asked is not None and prompt is not None and prompt + asked > self._context:
            left = self._context - prompt
            found = [f"max_tokens {asked} was clipped to the {left} that a prompt of {prompt} leaves of the context"]
        if reply.finish_reason == "repeated":
            found.append("the model repeated itself and was stopped, which finish_reason calls length")
        return found

    def note(self, reply: Completion) -> str:
        """Say in a line for the log what an answer cost, and what was not done as asked; nothing of its text."""
        counts = f"{reply.finish_reason}, {reply.prompt_tokens} tokens read, {reply.completion_tokens} written"
        return "; ".join([f"{counts}, {time.monotonic() - self._start:.2f} s", *self.warnings(reply)])

    def whole(self, reply: Completion) -> dict[str, Any]:
        """Write the answer in one."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": reply.text},
            "logprobs": self._logprobs(reply),
            **_end(reply),
        }
        said = {"object": "chat.completion", "choices": [choice], "usage": _usage(reply)}
        return {**self._head, **said, **self._warned(reply)}

    def first(self) -> bytes:
        """Write the event that begins a streamed answer."""
        return self._event({"role": "assistant", "content": ""})

    def piece(self, text: str) -> bytes:
        """Write the event of a piece of text."""
        return self._event({"content": text})

    def last(self, reply: Completion) -> Iterator[bytes]:
        """Write the events that end a streamed answer."""
        yield self._event({}, {"logprobs": self._logprobs(reply), **_end(reply)}, **self._warned(reply))
        options = self._body.stream_options
        if options is not None and options.include_usage:
            yield _line({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(reply)})
        yield DONE

    def _logprobs(self, reply: Completion) -> dict[str, Any] | None:
        """Write the log-probabilities of the text's tokens, where they were asked for and the backend tells them."""
        if not self._body.logprobs or not reply.token_logprobs:
            return None
        ends = [end for end, _ in reply.token_logprobs]
        tokens: list[dict[str, Any]] = [
            {"token": reply.text[start:end], "logprob": value, "bytes": None, "top_logprobs": []}
            for start, (end, value) in zip([0, *ends], reply.token_logprobs, strict=False)
            if start < len(reply.text)
        ]
        return {"content": tokens}

    def _event(self, delta: dict[str, str], end: Mapping[str, Any] = _GOES_ON, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, **end}
        return _line({**self._head, "object": "chat.completion.chunk", "choices": [choice], **more})

    def _warned(self, reply: Completion) -> dict[str, list[str]]:
        found = self.warnings(reply)
        return {"warnings": found} if found else {}


def error_event(body: dict[str, Any]) -> bytes:
    """Write the event of an error after which no more comes."""
    return _line(body)


def _line(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _end(reply: Completion) -> dict[str, str]:
    """Say why an answer ended; vLLM names the stop string beside the reason, which the protocol has no word for."""
    reason = "stop" if reply.finish_reason in ("stop", STOP_STRING) else "length"
    return {"finish_reason": reason, **({"stop_reason": reply.stop_reason} if reply.stop_reason else {})}


def _usage(reply: Completion) -> dict[str, int] | None:
    read, written = reply.prompt_tokens, reply.completion_tokens
    if read is None or written is None:
        return None
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
