"""Replies of OpenAI-compatible servers, streamed or whole, as one text with its cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from egm.backends.openai.faults import BrokenReplyError
from egm.types import Completion

_NO_ANSWER = ("abort", "error")  # how SGLang and vLLM close a request that they gave up


@dataclass(slots=True)
class Reply:
    """A reply as it comes in.

    Attributes:
        content: Pieces of the answer.
        reasoning: Pieces that the server's reasoning parser moved out of it.
        finish_reason: Why it ended; None while it has not.
        usage: Tokens as the server counts them.
        logprobs: Each token with its log-probability, where asked for.
    """

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Any = None
    logprobs: list[tuple[str, float]] = field(default_factory=list)

    def add(self, chunk: Any) -> bool:
        """Take in a chunk of a stream, or a whole reply; tell whether it brought text."""
        self.usage = _get(chunk, "usage") or self.usage
        brought = False
        for choice in _get(chunk, "choices") or ():
            if _get(choice, "index") not in (0, None):
                continue
            part = _get(choice, "delta") or _get(choice, "message")
            # vLLM says `reasoning`, SGLang `reasoning_content`, some versions the same twice.
            thought = _text(part, "reasoning_content") or _text(part, "reasoning")
            content = _text(part, "content")
            self.reasoning += [thought] if thought else []
            self.content += [content] if content else []
            brought = brought or bool(thought or content)
            self.logprobs += [
                (str(_get(token, "token")), float(_get(token, "logprob")))
                for token in _get(_get(choice, "logprobs"), "content") or ()
            ]
            self.finish_reason = _get(choice, "finish_reason") or self.finish_reason
        return brought

    def add_json(self, data: bytes) -> None:
        """Take in the whole reply of a server that does not stream.

        Raises:
            BrokenReplyError: If it is no JSON object.
        """
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise BrokenReplyError("not JSON, but " + repr(data[:80].decode("utf-8", "replace")))
        self.add(value)

    def text(self) -> str:
        r"""Join reasoning and answer as the model wrote them.

        Reasoning without an answer stays bare: it may have been cut off before `</think>`, or, from a parser that
        waits for one, be the whole text of a model that does not think.
        """
        # Line breaks beside the tags go with either part, as the server likes: that after `<think>` is the template's.
        reasoning, content = "".join(self.reasoning).lstrip("\n"), "".join(self.content)
        if not reasoning or not content.strip():
            return reasoning or content
        return "{}\n</think>\n\n{}".format(reasoning.rstrip("\n"), content.lstrip("\n"))

    def completion(self) -> Completion:
        """Return what came, without times.

        Raises:
            BrokenReplyError: If the reply never finished, or the server gave it up.
        """
        if self.finish_reason is None:
            raise BrokenReplyError("it ended without a finish reason")
        if self.finish_reason in _NO_ANSWER:
            raise BrokenReplyError(f"the server gave it up: finish reason {self.finish_reason!r}")
        details = _get(self.usage, "completion_tokens_details")
        reasoning = _get(details, "reasoning_tokens")
        return Completion(
            text=self.text(),
            finish_reason=self.finish_reason,
            prompt_tokens=_count(_get(self.usage, "prompt_tokens")) or 0,
            completion_tokens=_count(_get(self.usage, "completion_tokens")) or 0,
            reasoning_tokens=_count(_get(self.usage, "reasoning_tokens") if reasoning is None else reasoning),
            logprob=_mean([value for _, value in self.logprobs]),
            answer_logprob=_mean(self._answer_logprobs()),
        )

    def _answer_logprobs(self) -> list[float]:
        """Those of the tokens after the one that ends the last `</think>`."""
        text, ends = "", []
        for token, _ in self.logprobs:
            text += token
            ends.append(len(text))
        closed = text.rfind("</think>")
        after = closed + len("</think>") if closed >= 0 else 0
        return [value for (_, value), end in zip(self.logprobs, ends, strict=True) if end > after]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _get(value: Any, name: str) -> Any:
    # A whole reply is a dict, a chunk one of the library's objects, which hold what this server sent and no more.
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _text(value: Any, name: str) -> str:
    text = _get(value, name)
    return text if isinstance(text, str) else ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
