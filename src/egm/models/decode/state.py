"""Rows under way in decoding, and the step that writes a token in each: in place, so that graphs can be replayed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from egm.models.decode.cache import Cache, additive
from egm.models.decode.sampling import Drawing

UNIT = 64
"""Prompts are padded to a multiple of it, and the part of the cache in use grows by at least so many tokens."""


def coarse(count: int, least: int, steps: int) -> int:
    """Round up to a multiple of `least`, more coarsely above, so that there are at most `steps` values an octave."""
    unit = max(least, (1 << count.bit_length()) // (2 * steps))
    return -(-count // unit) * unit


class Clock:
    """When how many tokens were there; it stands still while graphs are recorded.

    Attributes:
        marks: Pairs of the tokens of a row and the time in seconds.
        stood: For how many seconds it has stood still.
    """

    def __init__(self) -> None:
        self.marks: list[tuple[int, float]] = []
        self.stood = 0.0

    def mark(self, written: int) -> None:
        """Note that so many tokens are there."""
        self.marks.append((written, time.perf_counter() - self.stood))


class State:
    """What a step reads and writes, always in the same place, so that a graph of it can be replayed.

    Args:
        rows: Completions to write side by side.
        length: Most tokens of a row, its prompt included.
        core: The model inside, with its tower and its language model.
        head: Makes scores of hidden states.
        drawing: How a token is drawn.
        stops: Tokens that end a row.
        banned: Tokens never drawn, on the device.
        pad: What rows that have ended go on with.
        logprobs: Whether to keep the log-probabilities of the tokens.
        graphs: Whether to record steps as CUDA graphs and replay those.

    Attributes:
        finished: Which rows have ended, shape (rows,).
        rows, length, graphs: As given.
        prompt: Length of the prompts, padded on the left.
    """

    def __init__(
        self,
        rows: int,
        length: int,
        *,
        core: Any,
        head: Any,
        drawing: Drawing,
        stops: Sequence[int],
        banned: torch.Tensor,
        pad: int,
        logprobs: bool,
        graphs: bool,
    ) -> None:
        self._core, self._head, self._drawing = core, head, drawing
        self._banned, self._pad = banned, pad
        self.rows, self.length, self.prompt, self.graphs = rows, length, 0, graphs
        device, dtype = head.weight.device, head.weight.dtype
        self.cache = Cache()
        # A table, as `torch.isin` sorts where there are many stops, which waits for the device and cannot be recorded.
        self._stops = torch.zeros(head.weight.shape[0], dtype=torch.bool, device=device)
        self._stops[[token for token in stops if token < len(self._stops)]] = True
        self.finished = torch.zeros(rows, dtype=torch.bool, device=device)
        self._tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self._positions = torch.zeros(rows, dtype=torch.long, device=device)
        self._output = torch.zeros((rows, length), dtype=torch.long, device=device)
        self._logprobs = torch.zeros((rows, length), device=device) if logprobs else None
        self._uniforms = None if drawing.greedy else torch.zeros((rows, length), device=device)
        self._mask = torch.zeros((rows, 1, 1, length), dtype=dtype, device=device)
        self._cursor = torch.zeros(1, dtype=torch.long, device=device)
        self._recorded: dict[int, Any] = {}
        self._pool: Any = None

    def fits(self, written: int) -> bool:
        """Tell whether rows of so many tokens still have a place."""
        return self.prompt + written <= self.length

    def begin(
        self,
        cache: Cache,
        mask: torch.Tensor,
        start: torch.Tensor,
        scores: torch.Tensor,
        which: Sequence[int],
        uniforms: torch.Tensor | None,
    ) -> None:
        """Start completions of prompts that have been read, and draw their first tokens; takes their cache apart.

        Args:
            cache: Of U prompts of length P.
            mask: Which of their tokens may be looked at, shape (U, P).
            start: The positions that come next, shape (U,).
            scores: Of the first tokens, shape (U, V).
            which: The prompt of each completion; rows without one stand idle.
            uniforms: The random numbers of the completions, shape (len(which), tokens); None if greedy.
        """
        self.prompt = mask.shape[1]
        index = self._index(which)
        self._adopt(cache, index, self.prompt, release=True)
        self._mask.fill_(torch.finfo(self._mask.dtype).min)
        self._mask[:, 0, 0, : self.prompt] = additive(mask, self._mask.dtype)[index]
        self._cursor.fill_(self.prompt)
        self._positions.copy_(start[index])
        self.finished.fill_(False)
        self.finished[len(which) :] = True
        self._output.fill_(self._pad)
        self._number(uniforms)
        self._take(scores[index])

    def resume(
        self, other: State, rows: Sequence[int], written: int, uniforms: torch.Tensor | None, *, release: bool
    ) -> None:
        """Go on with some rows of another state.

        Args:
            other: Where they stand.
            rows: Their numbers there.
            written: How many tokens they have.
            uniforms: Their random numbers, shape (len(rows), tokens); None if greedy.
            release: Whether the other's cache is no longer needed.
        """
        self.prompt = other.prompt
        index = self._index(rows)
        span = self.prompt + written
        self._adopt(other.cache, index, span, release=release)
        self._mask.fill_(torch.finfo(self._mask.dtype).min)
        self._mask[..., :span] = other._mask[index, ..., :span]
        self._cursor.copy_(other._cursor)
        self._positions.copy_(other._positions[index])
        self._tokens.copy_(other._tokens[index])
        self.finished.copy_(other.finished[index])
        self.finished[len(rows) :] = True
        self._output.fill_(self._pad)
        self._output[:, :span] = other._output[index, :span]
        if self._logprobs is not None and other._logprobs is not None:
            self._logprobs[:, :span] = other._logprobs[index, :span]
        self._number(uniforms)

    def written(self, rows: int, count: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the first tokens of the first rows, and their log-probabilities, each of shape (rows, count)."""
        span = slice(self.prompt, self.prompt + count)
        return self._output[:rows, span], None if self._logprobs is None else self._logprobs[:rows, span]

    def step(self, written: int, clock: Clock) -> None:
        """Read the last tokens, of rows of so many, and draw the next ones."""
        used = min(coarse(self.prompt + written, UNIT, 8), self.length)
        if self.graphs and used not in self._recorded:
            self._recorded[used] = self._record(used, clock)
        graph = self._recorded.get(used)
        if graph is None:
            self._step(used)
        else:
            graph.replay()

    def _index(self, numbers: Sequence[int]) -> torch.Tensor:
        """Return where each row comes from; idle rows are copies, so that nothing in them is out of the ordinary."""
        return torch.tensor([*numbers, *[numbers[0]] * (self.rows - len(numbers))], device=self.finished.device)

    def _adopt(self, cache: Cache, index: torch.Tensor, span: int, *, release: bool) -> None:
        for ours, theirs in ((self.cache.keys, cache.keys), (self.cache.values, cache.values)):
            for layer in range(len(theirs)):
                tensor = theirs[layer]
                if len(ours) <= layer:
                    _, heads, _, width = tensor.shape
                    ours.append(tensor.new_zeros((self.rows, heads, self.length, width)))
                ours[layer][:, :, :span] = tensor[:, :, :span].index_select(0, index)
                if release:
                    theirs[layer] = tensor.new_empty(0)
        self.cache.cursor = self._cursor

    def _number(self, uniforms: torch.Tensor | None) -> None:
        if self._uniforms is not None and uniforms is not None:
            span = min(uniforms.shape[1], self.length - self.prompt)
            self._uniforms[: len(uniforms), self.prompt : self.prompt + span] = uniforms[:, :span]

    def _take(self, scores: torch.Tensor) -> None:
        """Draw tokens and note them where the cursor stands; rows that have ended go on with padding."""
        scores = scores.float().index_fill(1, self._banned, -torch.inf)
        uniform = None if self._uniforms is None else self._uniforms.index_select(1, self._cursor)[:, 0]
        drawn = self._drawing(scores, uniform)
        if self._logprobs is not None:
            chosen = scores.gather(1, drawn[:, None]) - scores.logsumexp(1, keepdim=True)
            self._logprobs.index_copy_(1, self._cursor, chosen)
        self._tokens.copy_(torch.where(self.finished, self._pad, drawn))
        self.finished.logical_or_(self._stops[self._tokens])
        self._output.index_copy_(1, self._cursor, self._tokens[:, None])

    def _step(self, used: int) -> None:
        self.cache.used = used
        self._mask.index_fill_(3, self._cursor, 0.0)
        output = self._core.language_model(
            inputs_embeds=self._core.get_input_embeddings()(self._tokens[:, None]),
            attention_mask=self._mask[..., :used],
            position_ids=self._positions[None, :, None].expand(3, -1, 1),
            past_key_values=self.cache,
            use_cache=True,
        )
        self._cursor.add_(1)
        self._positions.add_(1)
        self._take(self._head(output.last_hidden_state[:, -1]))

    def _record(self, used: int, clock: Clock) -> Any:
        """Record a step as a graph, and put back what that changed; None, with a warning, if it cannot be done."""
        torch.cuda.synchronize()
        before = time.perf_counter()
        try:
            graph = self._capture(used)
        except RuntimeError as error:
            warnings.warn(f"decoding goes on without CUDA graphs: {error}", stacklevel=2)
            graph = None
        torch.cuda.synchronize()
        clock.stood += time.perf_counter() - before
        return graph

    def _capture(self, used: int) -> Any:
        kept = [self._tokens, self._positions, self.finished, self._output, self._mask, self._cursor]
        kept += [] if self._logprobs is None else [self._logprobs]
        saved = [tensor.clone() for tensor in kept]

        def restore() -> None:
            for tensor, value in zip(kept, saved, strict=True):
                tensor.copy_(value)

        stream = _side_stream(self.finished.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._step(used)
                restore()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            self._step(used)
        self._pool = self._pool or graph.pool()
        restore()
        return graph


@cache
def _side_stream(device: torch.device) -> Any:
    """Return the one stream that steps are tried on: libraries keep memory for each that they have seen."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
