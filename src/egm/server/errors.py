"""What the server answers in place of an answer: a status, and an error in the protocol's own form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_TYPES: Final = {401: "authentication_error", 429: "rate_limit_error"}
_SHOWN = 5  # errors of fields that are named; a body may hold any number
_LONGEST = 200  # characters of what is said of one, since fields are named as the client likes


class HttpError(Exception):
    """A request that is refused or failed.

    Args:
        status: The HTTP status.
        message: What was wrong, and what to do.
        field: The field that it is about, such as `messages.0.content`.
        headers: Further headers.
    """

    def __init__(
        self, status: int, message: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.headers = status, message, field, dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Write it as the protocol has it."""
        usual = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = _TYPES.get(self.status, usual)
        return {"error": {"message": self.message, "type": kind, "param": self.field, "code": self.status}}


def invalid_fields(errors: Sequence[Any]) -> HttpError:
    """Make one error of what validation found, each field by its path.

    Args:
        errors: As pydantic lists them.
    """
    if any(error["type"] == "json_invalid" for error in errors):
        return HttpError(400, "the body is no JSON: send an object, as application/json")
    said = [(_path(error["loc"]), str(error["msg"]).removeprefix("Value error, ")) for error in errors]
    lines = [f"{path}: {text}"[:_LONGEST] if path else text[:_LONGEST] for path, text in said[:_SHOWN]]
    more = f" (and {len(said) - _SHOWN} more)" if len(said) > _SHOWN else ""
    return HttpError(422, "; ".join(lines) + more, field=said[0][0][:_LONGEST] if said else None)


def _path(place: Sequence[int | str]) -> str:
    """Write where a field stands, without the names of alternatives, which stand in brackets."""
    parts = [str(part) for part in place if not (isinstance(part, str) and part[:1] == "(")]
    return ".".join(parts[1:] if parts[:1] == ["body"] else parts)
