"""Replies of OpenAI-compatible servers, streamed or whole, as one text with its cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import isfinite
from typing import Any

from egm.backends.openai.faults import BrokenReplyError, RefusedReplyError, error_as_text, error_in
from egm.backends.openai.usage import count_of, read_usage
from egm.codecs.parsing.refusals import refuses
from egm.types import STOP_STRING, Completion, mean_if_any, usual_finish_reason

_GIVEN_UP = frozenset(
    [
        "abort",
        "aborted",
        "canceled",
        "cancelled",
        "engine_error",
        "error",
        "failed",
        "insufficient_system_resource",
        "network_error",
        "timeout",
    ]
)
"""How servers close a request that they gave up: SGLang and vLLM, DeepSeek, Zhipu, gateways."""
_KEPT_BACK = frozenset(["blocklist", "image_safety", "prohibited_content", "recitation", "safety", "sensitive", "spii"])
"""Names of a content filter beside those that begin with `content_filter`: Gemini, Zhipu."""
_CALLS = frozenset(["function_call", "malformed_function_call", "tool_call", "tool_calls", "tool_use"])


@dataclass(slots=True)
class Reply:
    """A reply as it comes in.

    Args:
        max_tokens: Most tokens that were asked for.
        stop: Stop strings that were sent.

    Attributes:
        content: Pieces of the answer.
        reasoning: Pieces that the server's reasoning parser moved out of it.
        finish_reason: Why it ended; None while it has not.
        stop_reason: The stop string that the server says it ended at, as vLLM and SGLang do.
        usage: Tokens as the server counts them.
        logprobs: Each token with its log-probability, None where the server names the token alone.
        refusal: Pieces of a refusal that stands apart from the answer.
        calls_tool: Whether it calls a tool, which none was offered to.
        id: That of the last piece.
        left: Those of the pieces before it.
    """

    max_tokens: int
    stop: Sequence[str] = ()
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: str | None = None
    usage: Any = None
    logprobs: list[tuple[str, float | None]] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    calls_tool: bool = False
    id: str = ""
    left: set[str] = field(default_factory=set)

    def add(self, chunk: Any) -> int:
        """Take in a chunk of a stream, or a whole reply; tell how many characters of text it brought.

        Raises:
            ServerError: If it is an error, though it came with status 200.
            BrokenReplyError: If it holds, or belongs to, several replies.
        """
        for holder in (chunk, *(_get(chunk, "choices") or ())):
            if (error := error_in(holder)) is not None:
                raise error
        self.usage = _get(chunk, "usage") or self.usage
        brought = 0
        choices = [choice for choice in _get(chunk, "choices") or () if _get(choice, "index") in (0, None)]
        if len(choices) > 1:
            raise BrokenReplyError(f"it holds {len(choices)} choices in place of one")
        if choices:
            self._take_id(_get(chunk, "id"))
        for choice in choices:
            part = _get(choice, "delta") or _get(choice, "message")
            # vLLM says `reasoning`, SGLang `reasoning_content`, some versions the same twice.
            thought = _text(part, "reasoning_content") or _text(part, "reasoning")
            content, thinking, declined = _content(_get(part, "content"))
            thought = thought or thinking
            content = content or ("" if thought else _text(choice, "text"))  # as completions have it
            refusal = _text(part, "refusal") or declined
            if self.finish_reason is not None and (thought or content or refusal):
                raise BrokenReplyError(f"it goes on after its finish reason {self.finish_reason!r}")
            self.refusal += [refusal] if refusal else []
            self.calls_tool = self.calls_tool or bool(_get(part, "tool_calls") or _get(part, "function_call"))
            self.reasoning += [thought] if thought else []
            self.content += [content] if content else []
            brought += len(thought) + len(content)
            tokens = _get(_get(choice, "logprobs"), "content")
            self.logprobs += [
                (str(_get(token, "token")), _logprob(_get(token, "logprob")))
                for token in (tokens if isinstance(tokens, list | tuple) else ())
            ]
            if reason := _get(choice, "finish_reason"):
                self.finish_reason = str(reason)
                said = (_get(choice, name) for name in ("stop_reason", "matched_stop"))
                self.stop_reason = next((str(stop) for stop in said if stop in self.stop), None)
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
            BrokenReplyError: If the reply never finished, the server gave it up, or it is no answer to what was asked.
            ServerError: If its text is the words of an error.
        """
        try:
            return self._completion()
        except BrokenReplyError as error:
            read, generated = (count_of(_get(self.usage, name)) for name in ("prompt_tokens", "completion_tokens"))
            error.tokens = read or 0, generated or 0
            raise

    def _completion(self) -> Completion:
        if self.finish_reason is None:
            raise BrokenReplyError("it ended without a finish reason")
        self._check_end(self.finish_reason.lower())
        finish_reason, text, said = usual_finish_reason(self.finish_reason), self.text(), "".join(self.content)
        stopped = self.stop_reason is not None and finish_reason == "stop"
        counted = count_of(_get(self.usage, "completion_tokens"))
        if (error := error_as_text(said, counted=bool(counted))) is not None:
            raise error
        if not text.strip() and counted is not None and counted > 1 and finish_reason != "length":
            raise BrokenReplyError(f"it holds no text, though {counted} tokens were generated: where is it?")
        details = _get(self.usage, "completion_tokens_details")
        names = ("prompt_tokens", "completion_tokens", "total_tokens", "reasoning_tokens")
        fields = {name: _get(self.usage, name) for name in names}
        fields["completion_tokens_details"] = {"reasoning_tokens": _get(details, "reasoning_tokens")}
        usage = read_usage(fields, text=text, max_tokens=self.max_tokens)
        return Completion(
            text=text,
            finish_reason=STOP_STRING if stopped else finish_reason,
            stop_reason=self.stop_reason if stopped else None,
            prompt_tokens=usage.prompt,
            completion_tokens=usage.completion,
            reasoning_tokens=usage.reasoning,
            logprob=_mean_if_all([value for _, value in self.logprobs]),
            answer_logprob=_mean_if_all(self._answer_logprobs()),
            token_logprobs=self._token_logprobs(),
        )

    def _take_id(self, given: Any) -> None:
        """Note whose piece this is. Some servers name each piece anew, but none comes back to a name that it left."""
        if not isinstance(given, str) or given in ("", self.id):
            return
        if given in self.left:
            raise BrokenReplyError("pieces of several replies are mixed up in it")
        self.left.add(self.id)
        self.id = given

    def _check_end(self, reason: str) -> None:
        """Tell a reply that was kept back, or is no answer, from the model's own, whatever text it brought before."""
        if reason in _GIVEN_UP:
            raise BrokenReplyError(f"the server gave it up: finish reason {reason!r}")
        declines = any(self.refusal) and not "".join(self.content).strip()  # the model itself, in words of its own
        if (reason.startswith("content_filter") or reason in _KEPT_BACK) and not declines:
            raise RefusedReplyError("the server's content filter kept the answer back")
        if self.calls_tool or reason in _CALLS:
            raise BrokenReplyError(
                "it calls a tool, though none was offered, in place of an answer: serve without tools"
            )

    def _answer_logprobs(self) -> list[float | None]:
        """Those of the tokens after the one that ends the last `</think>`."""
        closed = "".join(token for token, _ in self.logprobs).rfind("</think>")
        after = closed + len("</think>") if closed >= 0 else 0
        return [value for (_, value), end in zip(self.logprobs, self._token_ends(), strict=True) if end > after]

    def _token_logprobs(self) -> tuple[tuple[int, float], ...]:
        """Those of all tokens, each with its end; none where the server left one out, or shows other tokens as text."""
        known = [value for _, value in self.logprobs if value is not None]
        if len(known) < len(self.logprobs) or not "".join(token for token, _ in self.logprobs).startswith(self.text()):
            return ()
        return tuple(zip(self._token_ends(), known, strict=True))

    def _token_ends(self) -> list[int]:
        """How many characters there are with each token."""
        return [*accumulate(len(token) for token, _ in self.logprobs)]


def _get(value: Any, name: str) -> Any:
    # A whole reply is a dict, a chunk one of the library's objects, which hold what this server sent and no more.
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _logprob(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return float(value) if known else None


def _mean_if_all(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean_if_any(known) if len(known) == len(values) else None


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
