"""Tokens as a server counts them, and which of these counts cannot be."""

from __future__ import annotations

from typing import Any, NamedTuple

_TEXT_BYTES = 16
"""Most bytes of text a token, on average over a whole answer: several times what any text takes."""
_FREE_BYTES = 64
"""So many more may be in the longest of tokens, and in what a server adds."""


class Usage(NamedTuple):
    """Tokens read, generated, and of these thought; None where they are not counted, or the counts cannot be."""

    prompt: int | None
    completion: int | None
    reasoning: int | None


def read_usage(fields: dict[str, Any], *, text: str, max_tokens: int) -> Usage:
    """Read the counts of a reply.

    Args:
        fields: The `usage` of a reply, its details among them.
        text: Everything generated that was shown.
        max_tokens: Most tokens that were asked for.
    """
    prompt, completion, total = (
        count_of(fields.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    )
    details = fields.get("completion_tokens_details") or {}
    thought = count_of(fields.get("reasoning_tokens") if (told := details.get("reasoning_tokens")) is None else told)
    # A usage of zeros, as some servers send for want of one, is no count. SGLang says 0 reasoning tokens for a model
    # whose reasoning it does not parse: that is no count either.
    usage = Usage(prompt or None, completion or None, thought or None)
    if total and prompt is not None and completion is not None and total != prompt + completion:
        return Usage(None, None, None)  # one of the three is wrong, or leaves the reasoning out
    if completion is None:
        return usage
    size = len(text.encode("utf-8", "surrogatepass"))
    too_few = size > _TEXT_BYTES * completion + _FREE_BYTES or completion < (thought or 0)
    # A server that minds no limit shows more text than that. One that hides the reasoning keeps to the limit.
    too_many = completion > max(max_tokens, size + _FREE_BYTES)
    return Usage(usage.prompt, None, None) if too_few or too_many else usage


def count_of(value: Any) -> int | None:
    """Return a count, or None if the value is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
