"""What the server bounds, and by how much."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from egm.errors import EgmError
from egm.images import MAX_PIXELS
from egm.server.errors import HttpError

DEFAULT_MAX_TOKENS: Final = 4096
"""Most tokens of an answer where a request names no limit; the context bounds it too."""
DEFAULT_CONTEXT: Final = 32_768
"""Most tokens of a prompt and its answer together where a model does not say."""
LONGEST_TOKEN: Final = 128
"""Characters of a token: texts of more for each token of the context are refused before they are cut into tokens."""
RETRY_AFTER: Final = {"Retry-After": "1"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the server; each is for all clients together but those of a request.

    Attributes:
        queue: Most requests that wait while others are answered; one more is refused with 429.
        connections: Most connections that are open; one more is answered with 503 and closed.
        body_bytes: Largest body of a request; a larger one is refused with 413.
        held_bytes: Most bytes of the bodies of all requests that are not yet answered; more are refused with 429.
        held_pixels: Most pixels of the pictures of all requests that are not yet answered; more are refused with 429.
        head_seconds: Time for a request's head to come in, on an idle connection as well; then the connection is
            closed.
        body_seconds: Time for its body to come in; then it is refused with 408.
        request_seconds: Time from there to the last token; then the answer is given up with 504.
        send_seconds: Time for a client to take in a piece of its answer; then its connection is closed.
        grace_seconds: Time for what runs and waits to be answered once the server is told to end; the rest is given up
            with 503.

    Raises:
        EgmError: If one is out of range.
    """

    queue: int = 64
    connections: int = 256
    body_bytes: int = 32 * 2**20
    held_bytes: int = 512 * 2**20
    held_pixels: int = 2 * MAX_PIXELS
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    request_seconds: float = 600.0
    send_seconds: float = 60.0
    grace_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could be answered."""
        for name in (item.name for item in fields(self)):
            if not getattr(self, name) > (-1 if name == "grace_seconds" else 0):
                raise EgmError(f"the server's limit {name} {getattr(self, name)} is out of range: give more than 0")


class Held:
    """Counts what all requests hold of something.

    Args:
        what: Its name, for messages.
        limit: Most that may be held.
    """

    def __init__(self, what: str, limit: int) -> None:
        self._what, self._limit, self.count = what, limit, 0

    def take(self, count: int) -> None:
        """Count some more.

        Raises:
            HttpError: With 429, if that would be too many.
        """
        if self.count + count > self._limit:
            said = f"the requests under way hold {self.count} {self._what}, and {self._limit} are the limit: try later"
            raise HttpError(429, said, headers=RETRY_AFTER)
        self.count += count

    def give_back(self, count: int) -> None:
        """Count some less."""
        self.count -= count
