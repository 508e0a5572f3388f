"""What stands before the page: whose requests come through, to which paths, how large, and what the page may load.

The page is for this machine, or for who has the key. Of gradio's paths only those are open that the page itself needs:
others fetch addresses, or hand out files.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from egm.images import MAX_BYTES
from egm.server.errors import HttpError
from egm.server.guard import Application, Guard, Receive, Scope, Send, refuse, replayed
from egm.server.limits import Limits

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # gradio's page is written so
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The content security policy: nothing is loaded from elsewhere, nor told to anybody else."""
_HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
_OPEN: Final = re.compile(
    r"/|/(assets|static|svelte)/.*|/(theme\.css|config|favicon\.ico|manifest\.json|robots\.txt)"
    r"|/gradio_api/(queue/(join|data)|cancel|reset|heartbeat/\w+|startup-events|info|app_id)/?"
    r"|/egm/(pictures|answers)(/[\w.-]+)?",
    re.DOTALL,
)
_UPLOAD: Final = "/egm/pictures"
_BODY_BYTES: Final = 1 << 20
_UPLOAD_SECONDS: Final = 300.0
_DEPTH: Final = 4
_OF_FILES: Final = frozenset(("path", "url", "meta"))  # keys by which gradio knows a file


class WebGuard:
    """ASGI middleware: see the module.

    Args:
        app: What answers.
        host: The address that is listened at.
        key: The key, as the password of HTTP's basic authentication or as a bearer's; empty where none is asked for.
    """

    def __init__(self, app: Application, *, host: str, key: str) -> None:
        self._app, self._host, self._key = app, host, key.encode()
        uploads = Limits(body_bytes=MAX_BYTES, held_bytes=2 * MAX_BYTES, body_seconds=_UPLOAD_SECONDS)
        self._uploads = Guard(app, limits=uploads, key="")
        self._rest = Guard(_plain_events(app), limits=Limits(body_bytes=_BODY_BYTES), key="")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        guarded = _with_headers(send)
        try:
            self._check(scope["path"], headers)
        except HttpError as error:
            await refuse(guarded, error)
            return
        await (self._uploads if scope["path"] == _UPLOAD else self._rest)(scope, receive, guarded)

    def _check(self, path: str, headers: Mapping[str, str]) -> None:
        if not self._is_own_host(headers.get("host", "")):
            raise HttpError(421, "this page is not served by that name")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            raise HttpError(403, "another page may not ask here")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and path != "/":
            raise HttpError(403, "another page may not ask here")
        if self._key and not self._has_key(headers.get("authorization", "")):
            said = "this page asks for a key: give any name, and the key as the password"
            raise HttpError(401, said, headers={"WWW-Authenticate": 'Basic realm="egm web", charset="UTF-8"'})
        if not _OPEN.fullmatch(path) or ".." in path:
            raise HttpError(404, "there is nothing here")

    def _is_own_host(self, host: str) -> bool:
        """Whether a name is that of this page: one that a stranger's name server gives to this machine is not."""
        if self._key:
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in ("localhost", self._host):
                return True
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def _has_key(self, given: str) -> bool:
        scheme, _, rest = given.partition(" ")
        if scheme.lower() == "bearer":
            return hmac.compare_digest(rest.strip().encode(), self._key)
        if scheme.lower() != "basic":
            return False
        try:
            _, _, password = base64.b64decode(rest, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(password, self._key)


def is_plain(body: bytes) -> bool:
    """Whether an event's data holds texts, numbers and lists of them alone: an object in it may name a file or address.

    What the event itself tells may also be an object of texts and numbers, none under a key of gradio's files.

    Example:
        >>> is_plain(b'{"data": ["a", 1, null, ["b"]]}'), is_plain(b'{"data": [{"path": "http://example.com"}]}')
        (True, False)
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(value, dict) or not isinstance(value.get("session_hash", ""), str):
        return False
    number = value.get("fn_index", 0)
    if type(number) is not int or number < 0:
        return False
    return _plain(value.get("data", []), _DEPTH) and _is_told(value.get("event_data"))


def _plain_events(app: Application) -> Application:
    """Let events through that `is_plain` lets through, and all else."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/gradio_api/queue/join"):
            body = (await receive()).get("body", b"")  # whole, as `Guard` hands it out
            if not is_plain(body):
                await refuse(send, HttpError(400, "the page sends texts, numbers and lists of them alone"))
                return
            receive = replayed(body, receive)
        await app(scope, receive, send)

    return checked


def _plain(value: Any, depth: int) -> bool:
    if isinstance(value, list):
        return depth > 0 and all(_plain(each, depth - 1) for each in value)
    return not isinstance(value, dict) and (not isinstance(value, float) or math.isfinite(value))


def _is_told(value: Any) -> bool:
    if isinstance(value, dict):
        return _OF_FILES.isdisjoint(value) and all(_plain(each, 0) for each in value.values())
    return _plain(value, _DEPTH)


def _with_headers(send: Send) -> Send:
    async def guarded(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
        await send(message)

    return guarded
