"""Strings that end a text."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Lets a growing text through up to the first of some strings; what may be the beginning of one is held back.

    Args:
        stops: The strings, none of them empty.

    Attributes:
        found: Whether the text has ended at one.

    Example:
        >>> stops = StopStrings(["END"])
        >>> stops.add("one E"), stops.add("t EN"), stops.add("D two"), stops.found
        ('one ', 'Et ', '', True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self._kept, self.found = stops, "", False

    def add(self, piece: str) -> str:
        """Take in a piece and return what of the text is certain by now."""
        if self.found:
            return ""
        text = self._kept + piece
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._kept = True, ""
            return text[: min(places)]
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        kept = next((n for n in range(min(longest, len(text)), 0, -1) if self._begins(text[-n:])), 0)
        self._kept = text[len(text) - kept :]
        return text[: len(text) - kept]

    def rest(self) -> str:
        """Return what was held back, once no more comes."""
        kept, self._kept = self._kept, ""
        return kept

    def _begins(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stops)
