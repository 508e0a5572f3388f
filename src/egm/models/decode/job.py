"""Completions that are decoded together: what of them is written, where each ends, and how they come to the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from egm.models.decode.repetition import ends_repeated
from egm.models.decode.sampling import Sampler
from egm.models.decode.state import DecodeState, TokenClock

End: TypeAlias = Callable[[Sequence[int]], int | None]
"""Takes the next tokens of a completion; how many tokens it has if it ends among them, or None."""


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """Completions as they come out of a decoder.

    Attributes:
        ids: Tokens of each, the stop token included.
        logprobs: The log-probability of each token, at temperature 1 and among all tokens not banned; empty if not
            asked for.
        times: When each completion had its last token, on the clock of `time.perf_counter`. On the CPU this is exact.
            On a GPU the host looks once in 8 tokens, and what lies between is interpolated. Recording graphs, which
            happens once for each number of rows and length, does not count: the clock stands still.
    """

    ids: list[list[int]]
    logprobs: list[list[float]]
    times: list[float]


class DecodeJob:
    """Completions to write together, and as far as they are written.

    Attributes:
        alive: Which completions the rows of the current state are; those left behind have been saved.
        written: How many tokens those have. The first comes with the prompts.
    """

    def __init__(
        self,
        policy: Any,
        which: list[int],
        max_new_tokens: int,
        sampler: Sampler,
        uniforms: torch.Tensor | None,
        stops: tuple[int, ...],
        *,
        logprobs: bool,
        pad: int,
        stop_repeats: bool,
        ends: Sequence[End],
    ) -> None:
        self.policy, self.which, self.max_new_tokens = policy, which, max_new_tokens
        self.sampler, self.uniforms, self.stops, self.logprobs = sampler, uniforms, stops, logprobs
        self.stop_repeats, self.ends = stop_repeats, ends
        self._limits = [max_new_tokens] * len(which)
        self._seen = 0  # tokens of a row that `ends` have been given
        self.alive, self.written = list(range(len(which))), 1
        device = policy.get_output_embeddings().weight.device
        self._ids = torch.full((len(which), max_new_tokens), pad, device=device)
        self._logprobs = torch.zeros((len(which), max_new_tokens if logprobs else 0), device=device)

    def save(self, state: DecodeState) -> None:
        """Copy what a state has written."""
        index = torch.tensor(self.alive, device=self._ids.device)
        ids, logprobs = state.written(len(self.alive), self.written)
        self._ids[index, : self.written] = ids
        if logprobs is not None:
            self._logprobs[index, : self.written] = logprobs

    def end_rows(self, state: DecodeState) -> None:
        """End the rows that `ends` end, by what was written since the host looked last; without it nothing waits."""
        if not self.ends:
            return
        newest = state.written(len(self.alive), self.written)[0][:, self._seen :].tolist()
        self._seen = self.written
        ended = []
        for row, (number, tokens) in enumerate(zip(self.alive, newest, strict=True)):
            if (end := self.ends[number](tokens)) is not None:
                self._limits[number] = end  # what was written beyond it, before the host looked, is dropped
                ended.append(row)
        if ended:
            state.finished[torch.tensor(ended, device=state.finished.device)] = True

    def collect(self, clock: TokenClock) -> DecodedBatch:
        """Bring all to the host, each up to its stop token, with the time of its last token."""
        rows, logprobs = self._ids[:, : self.written].cpu(), self._logprobs[:, : self.written].tolist()
        ends = torch.isin(rows, torch.tensor(self.stops))
        # argmax takes the first of equals: the first stop token, which is the last token of its completion.
        lengths = torch.where(ends.any(1), ends.int().argmax(1) + 1, self.written).tolist()
        ids = [row[:length] for row, length in zip(rows.tolist(), lengths, strict=True)]
        if self.stop_repeats:  # such a row went on with padding, which is a stop token: it is none of the row's own
            lengths = [len(row) - (row[-1] in self.stops and ends_repeated(row[:-1])) for row in ids]
        lengths = [min(length, limit) for length, limit in zip(lengths, self._limits, strict=True)]
        counts, times = zip(*clock.marks, strict=True)
        return DecodedBatch(
            [row[:length] for row, length in zip(ids, lengths, strict=True)],
            [row[:length] for row, length in zip(logprobs, lengths, strict=True)],
            np.interp(lengths, counts, times).tolist(),
        )
