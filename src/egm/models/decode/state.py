"""The rows of a batch that is decoded, and the step that writes a token in each: in place, as CUDA graphs need it.

A replayed CUDA graph repeats kernels on the same addresses. So whatever changes from token to token (the last tokens,
positions, mask, cursor) is a tensor that is written in place, and a number of the host (how much of the cache is looked
at) is fixed in a graph: there is one graph for each value that it takes. Fused steps read that on the device, and one
graph serves for all lengths.

Columns are the same in all tensors of shape (B, length): the prompts, padded on the left, fill the first `prompt` ones,
and the n-th new token of every row, counted from 0, stands in column `prompt + n`. The cursor is the column of the last
tokens; the next step reads these, and so writes their keys and values there.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from egm.errors import first_line
from egm.models.decode.cache import StaticKVCache, additive_mask, columns_seen, tokens_at
from egm.models.decode.fused import FusedModel
from egm.models.decode.graphs import capture_graph
from egm.models.decode.layout import PAD_MULTIPLE
from egm.models.decode.prefill import ReadPrompts
from egm.models.decode.sampling import RepetitionCounter, Sampler

MOST_DRAFTED: Final = 7
"""Tokens of a draft: a pass reads so many and one more, all together, however long the draft is."""

_BLOCK_BYTES: Final = 2**28  # of layers of a cache that lie side by side and are copied at once


def bucket_size(count: int, least: int, steps: int) -> int:
    """Round up to a multiple of `least`, more coarsely above, so that there are at most `steps` buckets an octave."""
    # Half of the next power of two begins the octave that a count is in; `steps` parts of it are the buckets there.
    unit = max(least, (1 << count.bit_length()) // (2 * steps))
    return -(-count // unit) * unit


class TokenClock:
    """Notes when how many tokens were there; it stands still while graphs are recorded.

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


class DecodeState:
    """What a step reads and writes, always in the same place, so that a graph of it can be replayed.

    Args:
        rows: Completions to write side by side.
        length: Most tokens of a row, its prompt included.
        core: The model inside, with its tower and its language model.
        head: Makes logits of hidden states.
        sampler: How a token is sampled.
        stops: Tokens that end a row.
        banned: Tokens never sampled, on the device.
        pad: What rows that have ended go on with.
        logprobs: Whether to keep the log-probabilities of the tokens.
        stop_repeats: Whether a row that repeats itself ends.
        graphs: Whether to record steps as CUDA graphs and replay those.
        fused: What computes steps in place of `core` and `head`; None if those do.

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
        sampler: Sampler,
        stops: Sequence[int],
        banned: torch.Tensor,
        pad: int,
        logprobs: bool,
        stop_repeats: bool,
        graphs: bool,
        fused: FusedModel | None = None,
    ) -> None:
        self._fused = fused
        self._core, self._head, self._sampler = core, head, sampler
        self._banned, self._pad = banned, pad
        self.rows, self.length, self.prompt, self.graphs = rows, length, 0, graphs
        device, dtype = head.weight.device, head.weight.dtype
        self.cache, self._blocks = StaticKVCache(), list[torch.Tensor]()  # (layers, rows, key heads, length, width)
        # A table, as `torch.isin` sorts where there are many stops, which waits for the device and cannot be recorded.
        self._stops = torch.zeros(head.weight.shape[0], dtype=torch.bool, device=device)
        self._stops[[token for token in stops if token < len(self._stops)]] = True
        self.finished = torch.zeros(rows, dtype=torch.bool, device=device)
        self._tokens = torch.zeros(rows, dtype=torch.long, device=device)  # the last of each row
        self._positions = torch.zeros(rows, dtype=torch.long, device=device)  # theirs
        self._output = torch.zeros((rows, length), dtype=torch.long, device=device)
        self._logprobs = torch.zeros((rows, length), device=device) if logprobs else None
        self._repetition = RepetitionCounter(rows, device) if stop_repeats else None
        self._uniforms = None if sampler.greedy else torch.zeros((rows, length), device=device)
        self._mask = torch.zeros((rows, 1, 1, length), dtype=dtype, device=device)  # for all heads and the one query
        self._cursor = torch.zeros(1, dtype=torch.long, device=device)
        self._first = torch.zeros(rows, dtype=torch.long, device=device)  # the first column of each row that is seen
        self._is_banned = torch.zeros_like(self._stops).index_fill_(0, banned, True)
        self._recorded: dict[int, Any] = {}  # by how much of the cache is looked at; None where recording failed
        self._drafted: torch.Tensor | None = None  # the draft that is read, and what comes of it
        self._verdict: torch.Tensor | None = None
        self._pool: Any = None  # memory that the graphs of this state share, since one runs at a time

    def fits(self, written: int) -> bool:
        """Tell whether the cache is long enough for rows of so many new tokens."""
        return self.prompt + written <= self.length

    def begin(self, read: ReadPrompts, which: Sequence[int], uniforms: torch.Tensor | None) -> None:
        """Start completions of prompts that have been read, and sample their first tokens; takes their cache apart.

        Args:
            read: U prompts, padded to P tokens from here on.
            which: The prompt of each completion; rows without one stand idle.
            uniforms: The random numbers of the completions, shape (len(which), tokens); None if greedy.
        """
        self.prompt, width = read.padded, read.cache.keys[0].shape[2]
        index = self._index(which)  # (B,), of numbers below U: a prompt's keys are repeated for its completions
        self._first.copy_(self.prompt - read.lengths[index])  # here prompts are padded on the left
        columns = torch.arange(self.prompt, device=index.device)
        # Where each column comes from in the rows of the cache laid end to end, (B, P); padding is the first token's.
        tokens = (columns - self._first[:, None]).clamp(min=0)
        tokens += torch.where(tokens < read.prefix[index, None], 0, read.gap[index, None])
        places = index[:, None] * width + tokens
        self._adopt(read.cache, lambda tensors: tokens_at(tensors, places), self.prompt, release=True)
        self._mask.fill_(torch.finfo(self._mask.dtype).min)
        self._mask[:, 0, 0, : self.prompt].masked_fill_(columns >= self._first[:, None], 0.0)
        self._cursor.fill_(self.prompt)
        self._positions.copy_(read.start[index])
        self.finished.fill_(False)
        self.finished[len(which) :] = True
        self._clear_output()
        if self._repetition is not None:
            self._repetition.runs.zero_()
        self._place_uniforms(uniforms)
        self._sample(read.scores[index])

    def resume(
        self, other: DecodeState, rows: Sequence[int], written: int, uniforms: torch.Tensor | None, *, release: bool
    ) -> None:
        """Go on with some rows of another state: with fewer, or in a longer cache.

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

        def take(tensors: list[torch.Tensor]) -> torch.Tensor:
            chosen = [tensor[:, :, :span].index_select(0, index) for tensor in tensors]
            return chosen[0][None] if len(chosen) == 1 else torch.stack(chosen)

        if release:
            other._blocks = []
        self._adopt(other.cache, take, span, release=release)
        self._mask.fill_(torch.finfo(self._mask.dtype).min)
        self._mask[..., :span] = other._mask[index, ..., :span]
        self._cursor.copy_(other._cursor)
        self._positions.copy_(other._positions[index])
        self._first.copy_(other._first[index])
        self._tokens.copy_(other._tokens[index])
        self.finished.copy_(other.finished[index])
        self.finished[len(rows) :] = True
        self._clear_output()
        self._output[:, :span] = other._output[index, :span]
        if self._logprobs is not None and other._logprobs is not None:
            self._logprobs[:, :span] = other._logprobs[index, :span]
        if self._repetition is not None and other._repetition is not None:
            self._repetition.runs.copy_(other._repetition.runs[index])
        self._place_uniforms(uniforms)

    def written(self, rows: int, count: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the first tokens of the first rows, and their log-probabilities, each of shape (rows, count)."""
        span = slice(self.prompt, self.prompt + count)
        return self._output[:rows, span], None if self._logprobs is None else self._logprobs[:rows, span]

    def end(self, rows: Sequence[int]) -> None:
        """Let rows end where they are."""
        if rows:
            self.finished[list(rows)] = True

    def step(self, written: int, clock: TokenClock) -> None:
        """Read the last tokens, of rows of so many, and sample the next ones."""
        used = self.length
        if self._fused is None:  # in buckets, so that few graphs serve for all lengths; beyond the cursor it is masked
            used = min(bucket_size(self.prompt + written, PAD_MULTIPLE, 8), self.length)
        self._run(used, lambda: self._step(used), clock)

    def newest(self) -> tuple[int, float]:
        """Return the last token of the first row, and its log-probability, which the host waits for."""
        assert self._logprobs is not None
        logprob = self._logprobs.index_select(1, self._cursor)[0]
        token, value = torch.cat([self._tokens[:1].double(), logprob.double()]).tolist()
        return int(token), value

    def verify(self, draft: Sequence[int], clock: TokenClock) -> list[tuple[int, float]]:
        """Read the last token of the only row and a draft behind it, and write what the model writes, greedily.

        Args:
            draft: From none to `MOST_DRAFTED` tokens.
            clock: What stands still while a graph is recorded.

        Returns:
            The tokens that are written, with their log-probabilities: as many of the draft as the model would have
            written, and the one that it writes then.
        """
        if self._drafted is None or self._verdict is None:
            self._drafted = torch.zeros(MOST_DRAFTED, dtype=torch.long, device=self.finished.device)
            size = 2 * (MOST_DRAFTED + 1) + 1
            self._verdict = torch.zeros(size, dtype=torch.double, device=self.finished.device)
        told = torch.tensor([*draft, *[-1] * (MOST_DRAFTED - len(draft))])  # -1 is written by nobody
        self._drafted.copy_(told, non_blocking=True)
        self._run(-1, self._verify, clock)
        *found, accepted = self._verdict.tolist()
        tokens, logprobs = found[: MOST_DRAFTED + 1], found[MOST_DRAFTED + 1 :]
        return [(int(token), logprob) for token, logprob in zip(tokens, logprobs, strict=True)][: int(accepted) + 1]

    def _run(self, key: int, step: Callable[[], None], clock: TokenClock) -> None:
        """Run what writes tokens; replay it where it is recorded, or can be."""
        if self.graphs and key not in self._recorded:
            self._recorded[key] = self._record(step, clock)
        graph = self._recorded.get(key)
        if graph is None:
            step()
        else:
            graph.replay()

    def _index(self, numbers: Sequence[int]) -> torch.Tensor:
        """Return where each row comes from; idle rows are copies, so that nothing in them is out of the ordinary."""
        index = torch.tensor([*numbers, *[numbers[0]] * (self.rows - len(numbers))])
        return index.to(self.finished.device, non_blocking=True)  # nobody waits for what is being read

    def _adopt(
        self, cache: StaticKVCache, take: Callable[[list[torch.Tensor]], torch.Tensor], span: int, *, release: bool
    ) -> None:
        """Copy the first columns of a cache, as `take` finds them in n of its tensors: (n, B, heads, span, width)."""
        theirs, copied = [*cache.keys, *cache.values], list[torch.Tensor]()
        _, heads, _, width = theirs[0].shape
        # Small layers lie in one block and are copied at once, as many copies are launched more slowly than they run.
        # Large ones are copied one by one, so that never both caches are there whole.
        size = self.rows * heads * self.length * width * theirs[0].element_size()
        together = max(1, min(len(theirs), _BLOCK_BYTES // size))
        if release:
            cache.keys, cache.values = [], []
        while theirs:
            part, theirs = theirs[:together], theirs[together:]
            if len(self._blocks) == len(copied):  # only at first: graphs know the tensors of a state used again
                self._blocks.append(part[0].new_zeros((len(part), self.rows, heads, self.length, width)))
            copied.append(self._blocks[len(copied)])
            copied[-1][:, :, :, :span] = take(part)
        tensors = [tensor for block in copied for tensor in block.unbind()]
        self.cache.keys, self.cache.values = tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
        self.cache.cursor = self._cursor

    def _clear_output(self) -> None:
        self._output.fill_(self._pad)
        self._output[:, : self.prompt] = -1  # no token is repeated there

    def _place_uniforms(self, uniforms: torch.Tensor | None) -> None:
        """Put each completion's random numbers where its tokens will stand, so that a step finds them by the cursor."""
        if self._uniforms is not None and uniforms is not None:
            span = min(uniforms.shape[1], self.length - self.prompt)
            self._uniforms[: len(uniforms), self.prompt : self.prompt + span] = uniforms[:, :span]

    def _sample(self, scores: torch.Tensor) -> None:
        """Sample tokens from logits (B, V), and note them at the cursor; rows that have ended go on with padding."""
        sampled, logprobs = self._draw(scores)
        if self._logprobs is not None and logprobs is not None:
            self._logprobs.index_copy_(1, self._cursor, logprobs[:, None])
        self._tokens.copy_(torch.where(self.finished, self._pad, sampled))
        self.finished.logical_or_(self._stops[self._tokens])
        if self._repetition is not None:
            # Prompts are padded to `PAD_MULTIPLE` at least, so that there are columns enough before the cursor.
            before = self._output.index_select(1, self._cursor - self._repetition.blocks)
            self.finished.logical_or_(self._repetition(before, self._tokens))
        self._output.index_copy_(1, self._cursor, self._tokens[:, None])

    def _draw(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Draw tokens from logits (B, V), (B,), with their log-probabilities if these are kept, (B,)."""
        if self._fused is not None and self._sampler.greedy:
            return self._fused.operations.likeliest(scores, self._is_banned)
        scores = scores.float().index_fill(1, self._banned, -torch.inf)
        # Columns are chosen by a tensor throughout: a number of the host would be fixed in the graph.
        uniform = None if self._uniforms is None else self._uniforms.index_select(1, self._cursor)[:, 0]
        sampled = self._sampler(scores, uniform)
        if self._logprobs is None:
            return sampled, None
        # At temperature 1 and before top-k and top-p: what the model says of the token, not the sampler.
        return sampled, scores.gather(1, sampled[:, None])[:, 0] - scores.logsumexp(1)

    def _step(self, used: int) -> None:
        """Run the model on one token a row. This is what is recorded: nothing in it may make the host wait."""
        self.cache.used = used
        self._mask.index_fill_(3, self._cursor, 0.0)  # the tokens read now may be looked at from now on
        if self._fused is None:
            mask = self._mask[..., : self.cache.used]
            scores = self._scores(self._tokens[:, None], self._positions[:, None], mask)[:, -1]
        else:
            scores = self._fused.step(self._tokens, self._positions, self.cache, self._cursor, self._first)
        self._cursor.add_(1)  # before sampling: the new tokens stand one column on
        self._positions.add_(1)
        self._sample(scores)

    def _scores(self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Run the library's layers on tokens (B, T), as many places and a mask (B, 1, T, columns): (B, T, V)."""
        output = self._core.language_model(
            inputs_embeds=self._core.get_input_embeddings()(tokens),
            attention_mask=mask,
            position_ids=positions[None].expand(3, -1, -1),  # (3, B, T): text is at the same in all three
            past_key_values=self.cache,
            use_cache=True,
        )
        scores: torch.Tensor = self._head(output.last_hidden_state)
        return scores

    def _verify(self) -> None:
        """Read the last token and the draft of the only row. This is recorded, as `_step` is."""
        assert self._drafted is not None
        assert self._verdict is not None
        offsets = torch.arange(MOST_DRAFTED + 1, device=self._cursor.device)
        columns, positions = self._cursor + offsets, self._positions + offsets
        tokens = torch.cat([self._tokens, self._drafted.clamp(min=0)])
        if self._fused is None:
            seen = columns_seen(columns, self._first, self.length)
            self.cache.cursor, self.cache.used = columns, self.length
            scores = self._scores(tokens[None], positions[None], additive_mask(seen, self._mask.dtype)[None, None])[0]
            self.cache.cursor = self._cursor
        else:
            scores = self._fused.step_with_draft(tokens, positions, self.cache, columns, self._first)
        picked, logprobs = self._draw(scores)
        assert logprobs is not None
        accepted = (picked[:-1] == self._drafted).long().cumprod(0).sum()
        self._output.index_copy_(1, columns + 1, picked[None])  # what is beyond is written again
        if self._logprobs is not None:
            self._logprobs.index_copy_(1, columns + 1, logprobs[None])
        self._tokens.copy_(picked.index_select(0, accepted[None]))
        self._cursor.add_(accepted + 1)
        self._positions.add_(accepted + 1)
        self._mask[:, 0, 0].copy_(
            additive_mask(columns_seen(self._cursor - 1, self._first, self.length), self._mask.dtype)
        )
        self._verdict.copy_(torch.cat([picked.double(), logprobs.double(), accepted[None].double()]))

    def _record(self, step: Callable[[], None], clock: TokenClock) -> Any:
        """Record a step as a graph, and put back what that changed; None, with a warning, if it cannot be done.

        Each try writes a token, so all that a step writes is put back. Keys and values are not: the column written is
        that of the cursor, and the step to come writes the same there.
        """
        buffers = [self._tokens, self._positions, self.finished, self._output, self._mask, self._cursor]
        buffers += [] if self._logprobs is None else [self._logprobs]
        buffers += [] if self._repetition is None else [self._repetition.runs]
        saved = [tensor.clone() for tensor in buffers]

        def restore() -> None:
            for tensor, value in zip(buffers, saved, strict=True):
                tensor.copy_(value)

        torch.cuda.synchronize()
        before = time.perf_counter()
        try:
            graph, _ = capture_graph(step, self.finished.device, self._pool, restore)
            self._pool = self._pool or graph.pool()
        except RuntimeError as error:
            warnings.warn(f"decoding goes on without CUDA graphs: {first_line(error)}", stacklevel=2)
            graph = None
        torch.cuda.synchronize()
        clock.stood += time.perf_counter() - before
        return graph
