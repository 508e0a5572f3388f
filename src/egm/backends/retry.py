"""How often a failed request to a server is sent again, and how long to wait before it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from egm.errors import EgmError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failed request is sent again, and after how long.

    Waits grow twofold, and each is drawn evenly between nothing and that ("full jitter", so that clients which failed
    together do not come back together). Where the server says how long to wait (Retry-After), the drawn time is added
    to that. Rate limits, overload, resets, timeouts and broken replies are tried again; refusals (400, 401, 404,
    422, ...) never are.

    Attributes:
        retries: Most times to send again.
        backoff: Most seconds to wait before the first time.
        most: Most seconds to wait, before any time.
        retry_after_most: Most seconds of Retry-After to obey.

    Raises:
        EgmError: If a number is negative.

    Example:
        >>> 7.0 <= RetryPolicy(backoff=0.5).wait(0, retry_after=7.0) <= 7.5
        True
    """

    retries: int = 5
    backoff: float = 0.5
    most: float = 30.0
    retry_after_most: float = 60.0

    def __post_init__(self) -> None:
        """Refuse negative numbers."""
        for name in ("retries", "backoff", "most", "retry_after_most"):
            if not getattr(self, name) >= 0:
                raise EgmError(f"{name} {getattr(self, name)} is out of range: give 0 or more")

    def wait(self, attempt: int, *, retry_after: float | None = None) -> float:
        """Draw the seconds to wait after failed attempt number `attempt`, counted from 0."""
        ceiling = min(self.most, self.backoff * 2.0 ** min(attempt, 60))
        # Without a seed, unlike all other chance here: it decides no answer, and clients must not wait alike.
        jitter = random.Random().uniform(0.0, ceiling)
        return jitter + min(max(retry_after or 0.0, 0.0), self.retry_after_most)
