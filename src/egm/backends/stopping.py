"""Stop strings: where a text ends whose answer is known, and only its tail is left to write. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from functools import cache

from egm.backends.base import GenerationSettings, Request
from egm.types import STOP_STRING


def before_stop(text: str, settings: GenerationSettings, request: Request) -> str | None:
    """Cut a text before the first stop string at which the request lets it end.

    Returns:
        What stands before it; None if there is none.
    """
    if not settings.stop:
        return None
    places = (match.start() for match in re.finditer("|".join(map(re.escape, settings.stop)), text))
    parts = (text[:place] for place in places)
    return next((part for part in parts if request.ends is None or request.ends(part)), None)


def end_text(text: str, finish_reason: str, settings: GenerationSettings, request: Request) -> tuple[str, str]:
    """Return a text up to its stop string, with the finish reason that says so; or both as they are."""
    part = before_stop(text, settings, request)
    return (text, finish_reason) if part is None else (part, STOP_STRING)


class StopWatch:
    """Watches the tokens of a row for its stop string.

    Only at tokens that a stop string can end with is anything decoded, so that reasoning costs next to nothing.

    Args:
        settings: With the stop strings.
        request: Says by its `ends` which occurrence counts.
        decode: Tokens to text.
        stops: Tokens that end a row: what comes after one is not looked at.
        can_end: Whether a token can be the last of a stop string, see `watch_rows`.

    Attributes:
        end: How many of the row's tokens are generated once the stop string is whole; None while it is not.
    """

    def __init__(
        self,
        settings: GenerationSettings,
        request: Request,
        decode: Callable[[Sequence[int]], str],
        stops: Container[int],
        can_end: Callable[[int], bool],
    ) -> None:
        self._settings, self._request, self._decode = settings, request, decode
        self._stops, self._can_end = stops, can_end
        self._reach = max((len(stop.encode("utf-8", "surrogatepass")) for stop in settings.stop), default=0)
        self._ids: list[int] = []
        self._over = not settings.stop
        self.end: int | None = None

    def take(self, tokens: Sequence[int]) -> int | None:
        """Take the next tokens of the row; return `end`."""
        for token in tokens:
            self._over = self._over or token in self._stops
            if self._over:
                break
            self._ids.append(token)
            if self._can_end(token) and self._stands():
                self.end, self._over = len(self._ids), True
        return self.end

    def _stands(self) -> bool:
        # No token is shorter than a byte, so that a string which the newest one ends began no earlier.
        newest = self._decode(self._ids[-self._reach :])
        if not any(stop in newest for stop in self._settings.stop):
            return False
        return before_stop(self._decode(self._ids), self._settings, self._request) is not None


def watch_rows(
    settings: GenerationSettings,
    requests: Sequence[Request],
    decode: Callable[[Sequence[int]], str],
    stops: Container[int],
) -> list[StopWatch]:
    """Make the watch of each row; arguments as of `StopWatch`."""
    last = {stop[-1] for stop in settings.stop} | {
        "\N{REPLACEMENT CHARACTER}"
    }  # which stands for a part of a character

    @cache
    def can_end(token: int) -> bool:
        return not last.isdisjoint(decode([token]))

    return [StopWatch(settings, own, decode, stops, can_end) for own in requests]
