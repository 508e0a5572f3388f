"""What stands before the application: the key, the size of bodies, and clients that are slow."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from typing import Any, Final, TypeAlias

from egm.server.errors import HttpError
from egm.server.limits import Held, Limits

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

CLEANUP: Final = "egm.cleanup"
"""Where the scope of a request holds the `AsyncExitStack` that is closed at its end, however that comes."""
_OPEN: Final = frozenset({"/health"})


class Guard:
    """ASGI middleware: requests come through it with a right key, whole and in time, and replies are taken in time.

    Args:
        app: What answers.
        limits: The limits.
        key: The key that requests must bring; empty where none is asked for.
    """

    def __init__(self, app: Application, *, limits: Limits, key: str) -> None:
        self._app, self._limits, self._key = app, limits, key.encode()
        self._held = Held("bytes", limits.held_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        timed = self._timed(send)
        async with AsyncExitStack() as stack:
            try:
                self._check_key(scope)
                body = await self._read(scope, receive, stack)
            except HttpError as error:
                await refuse(timed, error)
                return
            if body is not None:
                scope[CLEANUP] = stack
                await self._app(scope, replayed(body, receive), timed)

    def _check_key(self, scope: Scope) -> None:
        if not self._key or scope["path"] in _OPEN:
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(key.strip(), self._key):
            said = "this server asks for a key: send it as Authorization: Bearer KEY"
            raise HttpError(401, said, headers={"WWW-Authenticate": "Bearer"})

    async def _read(self, scope: Scope, receive: Receive, stack: AsyncExitStack) -> bytes | None:
        """Read the body; None where the client has gone."""
        most = self._limits.body_bytes
        too_large = HttpError(413, f"the body is over the limit of {most} bytes: send smaller pictures")
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if len(length) > 18 or int(length) > most:  # h11 has seen to it that these are digits
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    piece = message.get("body", b"")
                    if len(body) + len(piece) > most:
                        raise too_large
                    self._held.take(len(piece))
                    stack.callback(self._held.give_back, len(piece))
                    body += piece
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            said = f"the body did not come within {self._limits.body_seconds:g} seconds: send it faster"
            raise HttpError(408, said) from None

    def _timed(self, send: Send) -> Send:
        async def timed(message: MutableMapping[str, Any]) -> None:
            async with asyncio.timeout(self._limits.send_seconds):
                await send(message)

        return timed


def replayed(body: bytes, receive: Receive) -> Receive:
    """Hand out a body that was read, and then what comes after it: that the client goes."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return again


async def refuse(send: Send, error: HttpError) -> None:
    """Answer with an error."""
    content = json.dumps(error.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(content)), **error.headers}
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": pairs})
    await send({"type": "http.response.body", "body": content})
