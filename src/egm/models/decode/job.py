"""Completions that are decoded together: how far they are written, and what becomes of them."""

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
        ends: As given.
        alive: Which completions the rows of the current state are; those left behind have been saved.
        written: How many tokens those have. The first comes with the prompts.

    Args:
        policy: The model.
        which: The prompt of each completion.
        max_new_tokens: Where a completion is cut off.
        sampler: How a token is sampled.
        uniforms: The random numbers of each completion; None if greedy.
        stops: Tokens that end a completion.
        logprobs: Whether to keep log-probabilities.
        pad: The padding token.
        stop_repeats: Whether a completion that repeats itself ends there.
        ends: See `BatchDecoder.generate`.
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
        self.stop_repeats = stop_repeats
        self.ends, self._seen, self._ended = ends, 0, dict[int, int]()
        self.alive, self.written = list(range(len(which))), 1
        device = policy.get_output_embeddings().weight.device
        self._ids = torch.full((len(which), max_new_tokens), pad, device=device)
        self._logprobs = torch.zeros((len(which), max_new_tokens if logprobs else 0), device=device)

    def ask(self, state: DecodeState, running: list[int]) -> list[int]:
        """Give `ends` what rows have written since the host looked last; return those of them that go on."""
        if not self.ends:  # so that nothing is copied
            return running
        new = state.written(len(self.alive), self.written)[0][:, self._seen :].tolist()
        self._seen = self.written
        ends = {row: self.ends[self.alive[row]](new[row]) for row in running}
        ended = {row: end for row, end in ends.items() if end is not None}
        self._ended |= {self.alive[row]: end for row, end in ended.items()}
        state.end(list(ended))
        return [row for row in running if row not in ended]

    def save(self, state: DecodeState) -> None:
        """Copy what a state has written."""
        index = torch.tensor(self.alive, device=self._ids.device)
        ids, logprobs = state.written(len(self.alive), self.written)
        self._ids[index, : self.written] = ids
        if logprobs is not None:
            self._logprobs[index, : self.written] = logprobs

    def collect(self, clock: TokenClock) -> DecodedBatch:
        """Bring all to the host, each up to its stop token, with the time of its last token."""
        rows, logprobs = self._ids[:, : self.written].cpu(), self._logprobs[:, : self.written].tolist()
        ends = torch.isin(rows, torch.tensor(self.stops))
        # argmax takes the first of equals: the first stop token, which is the last token of its completion.
        lengths = torch.where(ends.any(1), ends.int().argmax(1) + 1, self.written).tolist()
        ids = [row[:length] for row, length in zip(rows.tolist(), lengths, strict=True)]
        if self.stop_repeats:  # such a row went on with padding, which is a stop token: it is none of the row's own
            lengths = [len(row) - (row[-1] in self.stops and ends_repeated(row[:-1])) for row in ids]
        lengths = [self._ended.get(number, length) for number, length in enumerate(lengths)]
        counts, times = zip(*clock.marks, strict=True)
        return DecodedBatch(
            [row[:length] for row, length in zip(ids, lengths, strict=True)],
            [row[:length] for row, length in zip(logprobs, lengths, strict=True)],
            np.interp(lengths, counts, times).tolist(),
        )


class DraftedRow:
    """The only completion of a job, of which the host sees every token when it is written.

    Args:
        job: The job.
        stop_repeats: Whether it ends where it repeats itself.

    Attributes:
        ids: Its tokens.
        logprobs: Theirs.
        ended: Whether there will be no more.
    """

    def __init__(self, job: DecodeJob, *, stop_repeats: bool) -> None:
        self._stops, self._most, self._stop_repeats = frozenset(job.stops), job.max_new_tokens, stop_repeats
        self._end = job.ends[0] if job.ends else None
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.ended = False

    def take(self, new: Sequence[tuple[int, float]]) -> int:
        """Take the next tokens with their log-probabilities, up to one that ends the row; return how many it took."""
        before = len(self.ids)
        for token, logprob in new:
            self.ids.append(token)
            self.logprobs.append(logprob)
            repeats = self._stop_repeats and ends_repeated(self.ids)
            if token in self._stops or repeats or len(self.ids) == self._most:
                self.ended = True
                break
        if self._end is not None and (end := self._end(self.ids[before:])) is not None:
            del self.ids[end:], self.logprobs[end:]
            self.ended = True
        return len(self.ids) - before
