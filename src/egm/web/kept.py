"""Things that the page may ask for again, by names that nobody guesses; where they are too many, the oldest go."""

from __future__ import annotations

import math
import secrets
import threading
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Keeps things by random names.

    Args:
        most: Most things.
        size: Most of what they weigh together, if that is bounded; the newest stays whatever it weighs.

    Example:
        >>> kept = Kept(most=2, size=10)
        >>> first, second, third = (kept.add(letter, weight=1) for letter in "abc")
        >>> kept.get(first), kept.get(second), kept.get(third)
        (None, 'b', 'c')
    """

    def __init__(self, most: int, size: float = math.inf) -> None:
        self._most, self._size, self._held = most, size, 0
        self._things: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, thing: T, *, weight: int = 0) -> str:
        """Keep a thing, and return its name."""
        name = secrets.token_urlsafe(18)
        with self._lock:
            self._things[name] = thing, weight
            self._held += weight
            while len(self._things) > 1 and (len(self._things) > self._most or self._held > self._size):
                _, (_, gone) = self._things.popitem(last=False)
                self._held -= gone
        return name

    def name_of(self, thing: T) -> str | None:
        """Return the name of a thing, the very same and not an equal one; None where it is not kept."""
        with self._lock:
            return next((name for name, (held, _) in self._things.items() if held is thing), None)

    def get(self, name: object) -> T | None:
        """Return the thing of a name, which is the newest again; None where there is none any more."""
        with self._lock:
            if not isinstance(name, str) or name not in self._things:
                return None
            self._things.move_to_end(name)
            return self._things[name][0]
