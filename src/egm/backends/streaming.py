"""Text as it is written: told to whoever listens (`Request.on_text`), and ended at its stop string, or by the listener.

Every engine in this process gives each row of tokens a `TextWatch`, and nothing else looks at text while it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

from egm.backends.base import GenerationSettings, Request
from egm.backends.stopping import StopStrings
from egm.backends.tokens import finished
from egm.types import STOP_STRING


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


def token_logprobs(
    ids: Sequence[int], logprobs: Sequence[float], decode: Callable[[Sequence[int]], str]
) -> tuple[tuple[int, float], ...]:
    """Tell the log-probability of each token, and where it ends in the text, as `Completion.token_logprobs` does.

    Example:
        >>> token_logprobs([97, 0xC3, 0xA9], [-1.0, -2.0, 0.0], lambda ids: bytes(ids).decode(errors="replace"))
        ((1, -1.0), (1, -2.0), (2, 0.0))
    """
    pieces = TextPieces(decode)
    ends = accumulate(len(pieces.add([token])) for token in ids)
    return tuple((end, float(value)) for end, value in zip(ends, logprobs, strict=True))


class TextWatch:
    """Watches a row while it is written: tells the request's listener of its text, and finds where it ends.

    Without a listener nothing is decoded but where a stop string may end, so that reasoning costs next to nothing.

    Args:
        request: The request.
        settings: With the stop strings.
        decode: Tokens to text.
        end_tokens: Tokens that end a row, of which the listener is told nothing.
        can_end: Whether a token can be the last of a stop string; see `watch_rows`.

    Attributes:
        end: How many of the row's tokens there are once its listener or a stop string has ended it, that string
            included; None while neither has.
        acts: Whether there is a listener or a stop string at all. One that does not act need not be given tokens.
    """

    def __init__(
        self,
        request: Request,
        settings: GenerationSettings,
        decode: Callable[[Sequence[int]], str],
        end_tokens: Container[int],
        can_end: Callable[[int], bool],
    ) -> None:
        self._tell, self._decode, self._end_tokens = request.on_text, decode, end_tokens
        self._pieces, self._stops = TextPieces(decode), StopStrings(settings.stop, request.may_end)
        self._looks_at = can_end if self._tell is None else (lambda _: True)
        self._new: list[int] = []  # tokens whose text nobody has looked at
        self._count, self._over = 0, False
        self.acts = self._tell is not None or bool(settings.stop)
        self.end: int | None = None

    def take(self, tokens: Sequence[int]) -> int | None:
        """Take the next tokens of the row, and tell the listener what they complete; return `end`."""
        if not self.acts or self._over:
            return self.end
        told, before = "", self._count
        for token in tokens:
            if token in self._end_tokens:
                self._over = True
                break
            self._count += 1
            self._new.append(token)
            if not self._looks_at(token):
                continue
            told += self._look()
            if self._stops.found is not None:
                self.end, self._over = self._count, True
                break
        if self._tell is not None and self._count > before and self._tell(told) and self.end is None:
            self.end, self._over = self._count, True
        return self.end

    def finish(self, ids: Sequence[int]) -> dict[str, Any]:
        """Return text, finish reason and stop string of the row, whose tokens these are, as fields of a `Completion`.

        A row that was written beyond a limit of its own, beside others with more room, has fewer than were watched.
        """
        if self.acts:
            self._look()
        beyond = self.end is not None and self.end > len(ids)
        if self._stops.found is not None and not beyond:
            return {"text": self._stops.text, "finish_reason": STOP_STRING, "stop_reason": self._stops.found}
        own, finish_reason = finished(ids, self._end_tokens, ended=self.end is not None and not beyond)
        return {"text": self._decode(own), "finish_reason": finish_reason}

    def _look(self) -> str:
        piece = self._stops.add(self._pieces.add(self._new))
        self._new = []
        return piece


def watch_rows(
    requests: Sequence[Request],
    settings: GenerationSettings,
    decode: Callable[[Sequence[int]], str],
    end_tokens: Container[int],
) -> list[TextWatch]:
    """Make the watch of each row; arguments as of `TextWatch`."""
    # What stands for a part of a character may be a part of any.
    last = {stop[-1] for stop in settings.stop} | {"\N{REPLACEMENT CHARACTER}"}

    @cache
    def can_end(token: int) -> bool:
        return not last.isdisjoint(decode([token]))

    return [TextWatch(own, settings, decode, end_tokens, can_end) for own in requests]


class WatchStop:
    """A stopping criterion of transformers for rows that their watches end; its `generate` waits for each token anyway.

    Args:
        watches: One a row.
    """

    def __init__(self, watches: Sequence[TextWatch]) -> None:
        self._watches = watches
        self._acts = any(watch.acts for watch in watches)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - what generate calls with
        """Tell which rows have ended."""
        import torch

        if not self._acts:
            return torch.zeros(len(self._watches), dtype=torch.bool, device=input_ids.device)
        newest = input_ids[:, -1:].tolist()
        ends = [watch.take(tokens) for watch, tokens in zip(self._watches, newest, strict=True)]
        return torch.tensor([end is not None for end in ends], device=input_ids.device)
