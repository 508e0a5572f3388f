"""Stop strings: where a text ends before its model ends it. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from egm.backends.base import GenerationSettings, Request
from egm.types import STOP_STRING, Completion


class StopStrings:
    """Lets a growing text through up to a stop string; what may be the beginning of one is held back.

    Args:
        stops: The strings, none of them empty.
        ends: Whether the text may end before one (`Request.may_end`); where it is not true, that one is passed over.
            Without it the text ends at the first.

    Attributes:
        text: What has come; once it has ended, what stands before the stop string.
        found: The stop string that it ended at; None while it goes on.

    Example:
        >>> stops = StopStrings(["END"])
        >>> stops.add("one E"), stops.add("t EN"), stops.add("D two"), stops.found, stops.text
        ('one ', 'Et ', '', 'END', 'one Et ')
    """

    def __init__(self, stops: Sequence[str], ends: Callable[[str], bool | None] | None = None) -> None:
        self._stops, self._ends = stops, ends
        self._longest = max(map(len, stops), default=0)
        self._certain = 0  # characters that have been let through: no stop string begins there any more
        self.text = ""
        self.found: str | None = None

    def add(self, piece: str) -> str:
        """Take in a piece and return what of the text is certain by now."""
        if self.found is not None:
            return ""
        self.text += piece
        before = self._certain
        while (nearest := self._nearest()) is not None:
            place, stop = nearest
            if self._ends is None or self._ends(self.text[:place]):
                self.text, self.found = self.text[:place], stop
                return self.text[before:]
            self._certain = place + 1
        last = range(max(self._certain, len(self.text) - self._longest + 1), len(self.text))
        self._certain = next((place for place in last if self._may_begin(self.text[place:])), len(self.text))
        return self.text[before : self._certain]

    def _nearest(self) -> tuple[int, str] | None:
        places = ((self.text.find(stop, self._certain), stop) for stop in self._stops)
        return min(((place, stop) for place, stop in places if place >= 0), default=None)

    def _may_begin(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stops)


def before_stop(reply: Completion, request: Request, settings: GenerationSettings) -> Completion:
    """Cut a whole reply before the first stop string at which its request lets it end; its tokens are then not known.

    Example:
        >>> reply = Completion("one END two", completion_tokens=3)
        >>> before_stop(reply, Request([]), GenerationSettings(stop=("END",))).text
        'one '
    """
    stops = StopStrings(settings.stop, request.may_end)
    stops.add(reply.text)
    if stops.found is None:
        return reply
    return replace(reply, text=stops.text, finish_reason=STOP_STRING, stop_reason=stops.found, completion_tokens=None)
