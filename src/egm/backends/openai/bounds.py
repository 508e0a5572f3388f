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
_ROOM: Final = 1 << 20
_most_wire_bytes: ContextVar[int] = ContextVar("most_wire_bytes", default=16 * _ROOM)


class TextBound:
    """Counts the text of a reply.

    Args:
        max_tokens: Most tokens that were asked for.
    """

    def __init__(self, max_tokens: int) -> None:
        self._left = max_tokens * _TEXT_BYTES + _ROOM
        self._limit, self._tokens = self._left, max_tokens

    def take(self, characters: int) -> None:
        """Count text that came.

        Raises:
            RefusedReplyError: If it is more than so many tokens can be.
        """
        self._left -= characters
        if self._left < 0:
            raise RefusedReplyError(
                f"it is longer than {self._limit} bytes, more than the {self._tokens} tokens that it may have"
            )


def bound_wire(max_tokens: int, *, logprobs: bool) -> None:
    """Bound the bytes of the replies that the running task reads from now on."""
    _most_wire_bytes.set((2 if logprobs else 1) * max_tokens * _WIRE_BYTES + 4 * _ROOM)


async def bounded_response(response: Any) -> None:
    """Let a response end where its bytes pass the bound of its task: a hook of the HTTP client.

    Raises:
        RefusedReplyError: If it is compressed, which it was asked not to be: what it unpacks to has no bound.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise RefusedReplyError(f"it is compressed ({encoding[:20]}), which it was asked not to be")
    response.stream = _BoundedStream(response.stream, _most_wire_bytes.get())


class _BoundedStream:
    """A response's stream of bytes, up to a bound."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self._limit = stream, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise RefusedReplyError(f"it is longer than {self._limit} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
