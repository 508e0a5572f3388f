"""Sampling tokens from logits on their device: each row by a random number of its own, whatever stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from egm.models.decode import repetition


@dataclass(frozen=True, slots=True)
class Sampler:
    """Samples a token a row: temperature, then top-k, then top-p, then the inverse of the cumulated probabilities.

    Attributes:
        temperature: 0 takes the likeliest token each time.
        top_p: The likeliest tokens that together reach this probability.
        top_k: The k likeliest tokens; 0 keeps all.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken each time."""
        return self.temperature == 0.0

    def __call__(self, scores: torch.Tensor, uniform: torch.Tensor | None) -> torch.Tensor:
        """Sample a token a row.

        Args:
            scores: Logits in float32, shape (B, V); -inf is never sampled.
            uniform: A number in [0, 1) a row, in float32, shape (B,): how far up the cumulated shares to go. None if
                greedy.

        Returns:
            Tokens, shape (B,).
        """
        if self.greedy or uniform is None:
            return scores.argmax(dim=-1)
        # The largest becomes 0 first: at a low temperature the quotient could overflow.
        scores = (scores - scores.amax(dim=-1, keepdim=True)) / self.temperature
        if self.top_k:
            least = scores.topk(min(self.top_k, scores.shape[1]), dim=-1).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        if self.top_p < 1.0:
            ordered, places = scores.sort(dim=-1, descending=True, stable=True)
            shares = ordered.softmax(dim=-1)
            beyond = shares.cumsum(dim=-1) - shares >= self.top_p  # those before it are enough; never the likeliest
            scores = scores.masked_fill(beyond.scatter(1, places, beyond), -torch.inf)
        shares = scores.softmax(dim=-1)
        reached = shares.cumsum(dim=-1)
        # The first token whose cumulated probability passes the number. The number is scaled by the last sum, which
        # rounding leaves a little off 1, and no rounding of a parallel sum may find a token of probability 0.
        beyond = (reached > uniform[:, None] * reached[:, -1:]) & (shares > 0)
        return beyond.int().argmax(dim=-1)


class RowDraws:
    """A logits processor after which taking the largest score is a draw from the model's distribution.

    Each row goes by random numbers of its own, and the global random state is left alone.

    Args:
        sampler: How a token is sampled.
        uniforms: Random numbers in [0, 1) on the device of the scores, shape (rows, tokens).
    """

    def __init__(self, sampler: Sampler, uniforms: torch.Tensor) -> None:
        self._sampler, self._numbers = sampler, iter(uniforms.unbind(1))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - as generate calls
        """Leave each row, of scores of shape (rows, vocabulary), the token drawn."""
        drawn = self._sampler(scores.float(), next(self._numbers))
        return torch.full_like(scores, -torch.inf).scatter(1, drawn[:, None], 0.0)


class RepetitionCounter:
    """Tells on the device which rows repeat themselves, as `ends_repeated` says of a list of tokens.

    It keeps, for each length of a block, how many tokens in a row have been those that stand so many before them.

    Args:
        rows: How many there are.
        device: Where the tokens are.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.blocks = torch.arange(1, repetition.LONGEST_BLOCK + 1, device=device)
        self.runs = torch.zeros((rows, len(self.blocks)), dtype=torch.long, device=device)

    def __call__(self, before: torch.Tensor, newest: torch.Tensor) -> torch.Tensor:
        """Take the next token of each row, without waiting for the device.

        Args:
            before: The tokens before it, the nearest first, shape (rows, longest block); -1 where there are none.
            newest: The token, shape (rows,).

        Returns:
            Whether a row repeats itself with it, shape (rows,).
        """
        self.runs.add_(1).mul_(before == newest[:, None])
        lengths = self.runs + self.blocks  # the first block repeats nothing, and counts all the same
        return (lengths >= repetition.REPEATED).any(dim=1)


def uniforms(seeds: Sequence[int], count: int) -> torch.Tensor:
    """Return the first `count` random numbers in [0, 1) of each seed, shape (seeds, count), on the CPU.

    A longer row begins as a shorter one of the same seed; the global random state is left alone.
    """
    rows = [torch.rand(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows) if rows else torch.zeros(0, count)
