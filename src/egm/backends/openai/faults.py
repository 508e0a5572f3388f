"""What goes wrong between a client and a server, and what is worth another try."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final

from egm.errors import BackendError

_LOOKED_AT: Final = 8_000  # characters of what a server said: one that sends megabytes must not take seconds
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_ADVICE: Final = {
    401: "give the right api_key, or set OPENAI_API_KEY",
    403: "give an api_key that may use this model",
    **dict.fromkeys((301, 302, 303, 307, 308), "redirects are not followed: give the URL that this one leads to"),
    404: "check the model's name and the server's URL, which mostly ends in /v1",
    429: "lower the concurrency, or try again later",
}
_SPENT: Final = "the account has nothing left to spend: top it up, or use another key"

_ERROR_PAGE: Final = re.compile(
    r"(?:<!doctype html|<html)[^<]{0,200}+(?:<(?!title|h1)[^<]{0,400}+){0,20}+<(?:title|h1)[^>]{0,100}+>"
    r"([^<]{0,100}?(?:\b[45]\d\d\b|error|unavailable|time-?out|denied|bad gateway)[^<]{0,100}+)",
    re.IGNORECASE,
)
_ERROR_WORDS: Final = re.compile(
    r"""(?:(?:http|status|error|code)[\s:/.\d]{0,12}+)*+(?:[45]\d\d\b[\s:,-]{0,4}+)?+(?:
        (?:internal\ server\ error|bad\ gateway|service\ (?:temporarily\ )?+unavailable|gateway\ time-?out
            |too\ many\ requests|request\ timed?\ ?out|unauthorized|forbidden)\W*+\Z
      | rate\ limit\ (?:reached|exceeded)\b | cuda\ (?:error|out\ of\ memory)\b | out\ of\ memory\b
      | (?:torch\.)?+(?:cuda\.)?+OutOfMemoryError\b | (?:RuntimeError|ValueError):
      | upstream\ (?:connect\ error|request\ timeout) | traceback\ \(most\ recent\ call\ last\)
    )""",
    re.IGNORECASE | re.VERBOSE,
)


class BrokenReplyError(Exception):
    """A reply that is no answer: cut off without a finish reason, or not what the protocol says.

    Attributes:
        tokens: Tokens read and generated for it, as the server counts them: it may well charge for them.
    """

    tokens: tuple[int, int] = (0, 0)


class RefusedReplyError(BrokenReplyError):
    """A reply that would be the same the next time: kept back, or without an end."""


class ServerError(Exception):
    """An error that a server tells in a reply with status 200.

    Attributes:
        code: Its code where it is that of a status, or None.
    """

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


def error_in(value: Any) -> ServerError | None:
    """Find the error in a reply, a chunk or a choice: an `error`, or an object that calls itself one, as SGLang's."""
    get = value.get if isinstance(value, dict) else partial(getattr, value)
    error = get("error", None)
    if not error and get("object", None) == "error":
        error = value
    if not error:
        return None
    fields = error if isinstance(error, dict) else getattr(error, "__dict__", {"message": error})
    message = fields.get("message") or fields.get("detail") or fields.get("type") or error
    code = str(fields.get("code") or fields.get("status") or "")
    return ServerError(str(message), int(code) if code.isdecimal() and len(code) == 3 else None)


def error_as_text(text: str, *, counted: bool) -> ServerError | None:
    """Find the error that a gateway, or an engine, wrote where the answer should be.

    Args:
        text: The answer.
        counted: Whether tokens were counted for it: then plain words are the model's own.
    """
    text = text.strip()
    if page := _ERROR_PAGE.match(text):
        return ServerError(page[1], None)
    if text[:1] == "{" and text[-1:] == "}" and '"bbox' not in text:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
        # A model that says in such a key why there is no box writes words; an engine has a form for it.
        error = error_in(value if isinstance(value.get("error", {}), str | dict) else {})
        formed = isinstance(value.get("error"), dict) or value.get("object") == "error"
        if error is not None and (formed or _ERROR_WORDS.match(str(error))):
            return error
        return ServerError(text, None) if _ERROR_WORDS.match(str(value.get("detail", ""))) else None
    return ServerError(text, None) if not counted and _ERROR_WORDS.match(text) else None


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed attempt.

    Attributes:
        text: What happened and what to do, on one line.
        retry: Whether another try may help.
        retry_after: Seconds that the server asked to wait, if it did.
        about_streaming: Whether the server refused the way of asking, not the question.
        unreachable: Whether no answer came because there was no connection, or it broke: the server may be gone.
        timed_out: Whether the answer took too long.
        about_stop: Whether it may have been the stop strings that it failed at: `transformers serve` says 500 to them,
            or breaks off its stream, without naming them.
        tokens: Tokens read and generated for nothing, as far as the server counted them.
    """

    text: str
    retry: bool
    retry_after: float | None = None
    about_streaming: bool = False
    about_stop: bool = False
    unreachable: bool = False
    timed_out: bool = False
    tokens: tuple[int, int] = (0, 0)


class ServerFaultError(BackendError):
    """A request that failed for good at one server, while another may answer it.

    Attributes:
        fault: The last failed attempt.
    """

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


def classify_exception(error: Exception, *, now: float, clean: Callable[[str], str]) -> Fault:
    """Say what an exception of the openai library, or beneath it, means.

    Args:
        error: What was raised.
        now: Seconds since 1970, for a Retry-After that is a date.
        clean: Takes the key out of a text, which is cut short only afterwards: half a key is not known for one.
    """
    import openai

    def said(what: object, most: int = 300) -> str:
        text = clean(" ".join(str(what).split())[:_LOOKED_AT])
        return text if len(text) <= most else f"{text[: most - 1]}…"

    def detail(error: BaseException) -> str:
        text = said(error, 200)
        return f" ({text})" if text else ""

    def words(error: Any) -> str:
        body = error.body
        message = body.get("message") or body.get("detail") if isinstance(body, dict) else body
        return said(message or error.message)

    if isinstance(error.__cause__, BrokenReplyError):  # raised beneath the library, which calls it a connection's fault
        error = error.__cause__
    if isinstance(error, ServerError):
        refused = error.code is not None and 400 <= error.code < 500 and error.code not in _RETRIED
        return Fault(f"the server failed: {said(error)}", retry=not refused, about_stop=True)
    if isinstance(error, RefusedReplyError):
        return Fault(f"broken reply{detail(error)}", retry=False, tokens=error.tokens)
    if isinstance(error, openai.APIStatusError):
        status, message = error.status_code, words(error)
        spent = error.code == "insufficient_quota"  # comes as 429, but does not pass
        advice = _SPENT if spent else _ADVICE.get(status, "")
        text = f"HTTP {status}: {message}" + (f": {advice}" if advice else "")
        return Fault(
            text,
            retry=status in _RETRIED and not spent,
            retry_after=_retry_after(error.response.headers.get("retry-after"), now),
            about_streaming=status in (400, 422) and "stream" in message.lower(),
            about_stop=status == 500 or (status in (400, 422) and "stop" in message.lower()),
        )
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        # A machine that is off the network does not even refuse.
        unconnected = type(error.__cause__).__name__ == "ConnectTimeout"
        return Fault(f"timed out{detail(error)}", retry=True, unreachable=unconnected, timed_out=not unconnected)
    if isinstance(error, openai.APIConnectionError):
        text = f"the connection failed{detail(error.__cause__ or error)}: is the server running?"
        return Fault(text, retry=True, unreachable=True)
    if isinstance(error, openai.APIError):  # an error told inside a stream, after status 200
        code = _code(error)
        refused = code is not None and 400 <= code < 500 and code not in _RETRIED
        return Fault(f"the server failed while answering: {words(error)}", retry=not refused, about_stop=True)
    if isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "httpcore", "anyio")):
        return Fault(f"the connection broke{detail(error)}", retry=True, unreachable=True)
    # What is left are replies that cannot be read: bad JSON, bad UTF-8, keys that are missing or of another type.
    tokens = error.tokens if isinstance(error, BrokenReplyError) else (0, 0)
    return Fault(f"broken reply{detail(error)}", retry=True, tokens=tokens)


def _code(error: Any) -> int | None:
    code = error.body.get("code") if isinstance(error.body, dict) else None
    return int(str(code)) if str(code).isdecimal() else None


def _retry_after(value: str | None, now: float) -> float | None:
    """Read seconds, or a date (RFC 9110, 10.2.3); what is neither, or not finite, counts as nothing."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return seconds if 0.0 <= seconds < float("inf") else None
