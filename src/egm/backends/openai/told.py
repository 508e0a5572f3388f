"""Text of a server's reply, told to the request's listener (`Request.on_text`) as it comes in."""

from __future__ import annotations

from egm.backends.base import Request
from egm.backends.openai.key import without_key
from egm.backends.openai.replies import Reply


class ToldText:
    """Tells the listener of a request what a reply brings; of a key that comes back nothing is told.

    Args:
        request: Whose listener.
        key: The server's key.
        begun: What a continued answer began with: where telling begins anew, it is told first.
    """

    def __init__(self, request: Request, key: str, *, begun: str = "") -> None:
        self._tell, self._again, self._key, self._begun = request.on_text, request.on_again, key, begun
        self._told = ""  # as the server wrote it

    def take(self, reply: Reply) -> bool:
        """Tell what is new in a reply, and return whether its listener ends it."""
        if self._tell is None:
            return False
        text = reply.text().rstrip("\n")  # where the reasoning ends, the line breaks before its tag are not the reply's
        if not text.startswith(self._told):  # a part that stands before what was told came late
            self.take_back()
        piece = text[len(self._told) :]
        piece = piece[: len(piece) - self._of_key(piece)]
        self._told += piece
        return self._tell(without_key(piece, self._key, answer=True))

    def take_back(self) -> None:
        """Say that what was told counts no more: the reply broke off, or is another."""
        if self._told and self._tell is not None and self._again is not None:
            self._again()
            if self._begun:
                self._tell(self._begun)
        self._told = ""

    def _of_key(self, piece: str) -> int:
        """How many characters at the end may be the beginning of the key."""
        end, key = piece[-len(self._key) :].lower() if self._key else "", self._key.lower()
        return next((n for n in range(min(len(end), len(key) - 1), 0, -1) if end.endswith(key[:n])), 0)
