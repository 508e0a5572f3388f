"""How long a reply may be: text by the tokens that were asked for, and what comes over the wire by a multiple of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any, Final

from egm.backends.openai.faults import RefusedReplyError

_TEXT_BYTES: Final = 64
"""Most bytes of text a token: the longest of any vocabulary, with room for what a server adds."""
_WIRE_BYTES: Final = 2048
"""Most bytes a token on the wire, where each may come as an event of its own; with log-probabilities twice that."""
_OVERHEAD_BYTES: Final = 1 << 20
_most_wire_bytes: ContextVar[int] = ContextVar("most_wire_bytes", default=16 * _OVERHEAD_BYTES)


class TextBound:
    """Counts the text of a reply.

    Args:
        max_tokens: Most tokens that were asked for.
    """

    def __init__(self, max_tokens: int) -> None:
        self._remaining = max_tokens * _TEXT_BYTES + _OVERHEAD_BYTES
        self._limit, self._tokens = self._remaining, max_tokens

    def take(self, characters: int) -> None:
        """Count text that came.

        Raises:
            RefusedReplyError: If it is more than so many tokens can be.
        """
        self._remaining -= characters
        if self._remaining < 0:
            raise RefusedReplyError(
                f"it is longer than {self._limit} bytes, more than the {self._tokens} tokens that it may have"
            )


def bound_wire(max_tokens: int, *, logprobs: bool) -> None:
    """Bound the bytes of the replies that the running task reads from now on."""
    _most_wire_bytes.set((2 if logprobs else 1) * max_tokens * _WIRE_BYTES + 4 * _OVERHEAD_BYTES)


async def bounded_response(response: Any) -> None:
    """Let a response end where its bytes, unpacked, pass the bound of its task: a hook of the HTTP client."""
    read, limit = response.aiter_bytes, _most_wire_bytes.get()

    async def aiter_bytes(chunk_size: int | None = None) -> AsyncIterator[bytes]:
        left = limit
        async for chunk in read(chunk_size):
            left -= len(chunk)
            if left < 0:
                raise RefusedReplyError(f"it is longer than {limit} bytes")
            yield chunk

    response.aiter_bytes = aiter_bytes  # through this go streamed events and whole replies alike
