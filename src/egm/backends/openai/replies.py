"""Replies of OpenAI-compatible servers, streamed or whole, as one text with its cost."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from egm.backends.openai.faults import BrokenReplyError, RefusedReplyError, error_in
from egm.codecs.parsing.refusals import refuses
from egm.types import Completion, mean_if_any

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
        refusal: Pieces of a refusal that stands apart from the answer.
        calls_tool: Whether it calls a tool, which none was offered to.
    """

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Any = None
    logprobs: list[tuple[str, float]] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    calls_tool: bool = False

    def add(self, chunk: Any) -> int:
        """Take in a chunk of a stream, or a whole reply; tell how many characters of text it brought.

        Raises:
            ServerError: If it is an error, though it came with status 200.
        """
        for holder in (chunk, *(_get(chunk, "choices") or ())):
            if (error := error_in(holder)) is not None:
                raise error
        self.usage = _get(chunk, "usage") or self.usage
        brought = 0
        for choice in _get(chunk, "choices") or ():
            if _get(choice, "index") not in (0, None):
                continue
            part = _get(choice, "delta") or _get(choice, "message")
            # vLLM says `reasoning`, SGLang `reasoning_content`, some versions the same twice.
            thought = _text(part, "reasoning_content") or _text(part, "reasoning")
            content, thinking, declined = _content(_get(part, "content"))
            thought = thought or thinking
            content = content or ("" if thought else _text(choice, "text"))  # as completions have it
            self.refusal += [refusal] if (refusal := _text(part, "refusal") or declined) else []
            self.calls_tool = self.calls_tool or bool(_get(part, "tool_calls") or _get(part, "function_call"))
            self.reasoning += [thought] if thought else []
            self.content += [content] if content else []
            brought += len(thought) + len(content)
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
            raise BrokenReplyError("not JSON, but " + repr(data.decode("utf-8", "replace")))
        if not isinstance(value.get("choices") or [], list | tuple):
            raise BrokenReplyError("`choices` is no list")
        self.add(value)

    def text(self) -> str:
        r"""Join reasoning and answer as the model wrote them.

        Reasoning without an answer stays bare: it may have been cut off before `</think>`, or, from a parser that
        waits for one, be the whole text of a model that does not think.
        """
        # Line breaks beside the tags go with either part, as the server likes: that after `<think>` is the template's.
        reasoning, content = "".join(self.reasoning).lstrip("\n"), "".join(self.content)
        if not content.strip() and (refusal := "".join(self.refusal).strip()):
            # It is the model's answer. As its `</think>` is read too, no codec takes it for a thought.
            content, reasoning = refusal if refuses(refusal) else f"Sorry: {refusal}", reasoning or "\n"
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
        text, counted = self.text(), _count(_get(self.usage, "completion_tokens"))
        if not text.strip():
            text = self._without_text(counted)
        details = _get(self.usage, "completion_tokens_details")
        reasoning = _get(details, "reasoning_tokens")
        thought = _count(_get(self.usage, "reasoning_tokens") if reasoning is None else reasoning)
        return Completion(
            text=text,
            finish_reason=self.finish_reason,
            # A usage of zeros, as some servers send for want of one, is no count.
            prompt_tokens=_count(_get(self.usage, "prompt_tokens")) or None,
            completion_tokens=counted or None,
            # SGLang says 0 for a model whose reasoning it does not parse: that is no count either.
            reasoning_tokens=thought or None,
            logprob=mean_if_any([value for _, value in self.logprobs]),
            answer_logprob=mean_if_any(self._answer_logprobs()),
        )

    def _without_text(self, counted: int | None) -> str:
        """Say what stands for a missing text, which is the server's fault but for a thought that was cut off."""
        if self.finish_reason == "content_filter":
            raise RefusedReplyError("the server's content filter kept the answer back")
        if self.calls_tool or self.finish_reason in ("tool_calls", "function_call"):
            raise BrokenReplyError(
                "it calls a tool, though none was offered, in place of an answer: serve without tools"
            )
        if counted is not None and counted > 1 and self.finish_reason != "length":
            raise BrokenReplyError(f"it holds no text, though {counted} tokens were generated: where is it?")
        return self.text()

    def _answer_logprobs(self) -> list[float]:
        """Those of the tokens after the one that ends the last `</think>`."""
        text, ends = "", []
        for token, _ in self.logprobs:
            text += token
            ends.append(len(text))
        closed = text.rfind("</think>")
        after = closed + len("</think>") if closed >= 0 else 0
        return [value for (_, value), end in zip(self.logprobs, ends, strict=True) if end > after]


def _get(value: Any, name: str) -> Any:
    # A whole reply is a dict, a chunk one of the library's objects, which hold what this server sent and no more.
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _text(value: Any, name: str) -> str:
    text = _get(value, name)
    return text if isinstance(text, str) else ""


def _content(value: Any) -> tuple[str, str, str]:
    """Read a message's content, text or a list of parts.

    Returns:
        The answer, and the thinking and the refusal that stand in parts of their own.

    Raises:
        BrokenReplyError: If it is neither.
    """
    if value is None or isinstance(value, str):
        return value or "", "", ""
    parts = value if isinstance(value, list | tuple) else [value]
    answer, thinking, refusal = [], [], []
    for part in parts:
        if isinstance(part, str):
            answer.append(part)
            continue
        kind = _get(part, "type")
        said = _get(part, "text")
        if kind in ("thinking", "reasoning"):
            thought = next((given for name in ("thinking", "reasoning", "text") if (given := _get(part, name))), "")
            thinking.append(thought if isinstance(thought, str) else "".join(_content(thought)))
        elif isinstance(said, str):
            answer.append(said)
        elif kind == "refusal" and isinstance(_get(part, "refusal"), str):
            refusal.append(_get(part, "refusal"))
        else:
            raise BrokenReplyError(f"its content has a part of type {str(kind)!r}, which holds no text")
    return "".join(answer), "".join(thinking), "".join(refusal)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
