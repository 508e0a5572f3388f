"""Text as it is written: pieces of it for whoever asked (`Request.on_text`), who may end the answer there."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from egm.backends.base import Request


class TextPieces:
    """The new text of a growing row of tokens; a character of which only some bytes are there is held back.

    Args:
        decode: Tokens to text.

    Example:
        >>> letters = TextPieces(lambda ids: bytes(ids).decode(errors="replace"))
        >>> letters.add([97]), letters.add([0xC3]), letters.add([0xA9])
        ('a', '', 'é')
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._told: list[int] = []  # tokens of the last piece, as some tokenizers write a token by the one before
        self._new: list[int] = []

    def add(self, tokens: Sequence[int]) -> str:
        """Take in new tokens and return the text that they complete."""
        self._new += tokens
        before, text = self._decode(self._told), self._decode([*self._told, *self._new])
        if len(text) <= len(before) or text.endswith("\ufffd"):
            return ""
        self._told, self._new = self._new, []
        return text[len(before) :]


class TextWatch:
    """Tells a request's listener of its answer, and whether that is to end here.

    Args:
        request: The request.
        decode: Tokens to text.
        stops: Tokens that end an answer, of which the listener is told nothing.

    Attributes:
        stopped: Whether the listener has ended the answer.
    """

    def __init__(self, request: Request, decode: Callable[[Sequence[int]], str], stops: Container[int]) -> None:
        self._tell, self._pieces, self._stops = request.on_text, TextPieces(decode), stops
        self.stopped = False

    @property
    def listens(self) -> bool:
        """Whether there is a listener at all."""
        return self._tell is not None

    def add(self, tokens: Sequence[int]) -> bool:
        """Take in what was written, and tell whether the answer is to end here."""
        if self._tell is None or self.stopped or any(token in self._stops for token in tokens):
            return self.stopped
        self.stopped = bool(self._tell(self._pieces.add(tokens)))
        return self.stopped


class WatchStop:
    """A stopping criterion of transformers for rows whose listeners end them.

    Args:
        watches: One a row.
        length: Length of the prompts.
    """

    def __init__(self, watches: Sequence[TextWatch], length: int) -> None:
        self._watches, self._length = watches, length
        self._listening = any(watch.listens for watch in watches)
        self.ends = [0] * len(watches)
        """Tokens of each row where it was ended; 0 where it was not."""

    def __call__(self, input_ids: object, scores: object, **kwargs: object) -> object:  # noqa: ARG002 - generate's
        """Tell which rows end with their newest token."""
        import torch

        assert isinstance(input_ids, torch.Tensor)
        if not self._listening:
            return torch.zeros(len(self._watches), dtype=torch.bool, device=input_ids.device)
        for row, (watch, token) in enumerate(zip(self._watches, input_ids[:, -1].tolist(), strict=True)):
            if not watch.stopped and watch.add([token]):
                self.ends[row] = input_ids.shape[1] - self._length
        return torch.tensor([watch.stopped for watch in self._watches], device=input_ids.device)
