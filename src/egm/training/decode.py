"""Decoding a whole generation at once: each prompt read once, the completions of all groups sampled side by side.

`generate` of transformers waits for the GPU at every token, copies the cache as it grows, and reads each prompt as
often as it has completions. Here prompts are read once and their cache is repeated; the cache has its full size from
the start, of which each step looks at the part in use; steps run without the host, as CUDA graphs where there are any.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from egm.models.rope_index import position_ids
from egm.training.prompts import Prompts

_UNIT = 64  # prompts are padded and the part of the cache in use grows by this many tokens: few shapes, few graphs
_GROUPED = "egm_grouped"
_KEPT_STATES = 3


class Cache:
    """Keys and values of all layers, written in place.

    Attributes:
        keys: Of each layer, shape (B, heads, length, width).
        values: Likewise.
        cursor: Where the next token is written, shape (1,).
        used: How much of the length is looked at.
    """

    is_compileable = False

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.cursor: torch.Tensor | None = None
        self.used = 0

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int, *args: Any, **kwargs: Any) -> Any:
        """Keep the keys and values of new tokens, and return all that are in use, as the model's layers ask for."""
        del args, kwargs
        if self.cursor is None:  # the prompts
            self.keys.append(key)
            self.values.append(value)
            return key, value
        self.keys[layer].index_copy_(2, self.cursor, key)
        self.values[layer].index_copy_(2, self.cursor, value)
        return self.keys[layer][:, :, : self.used], self.values[layer][:, :, : self.used]

    def get_seq_length(self, layer: int = 0) -> int:  # noqa: ARG002 - the library's signature
        """Return how much is in use."""
        return self.used


class Decoder:
    """Samples completions with a Qwen3-VL model in this process.

    Args:
        model: The policy, unwrapped. Weights of another type than `dtype` are copied before each generation.
        dtype: What to compute in.
        stops: Tokens that end a completion.
        pad: The padding token.
        banned: Tokens never to be sampled.
        rows: Most completions to decode together.
        graphs: Whether to replay steps as CUDA graphs, on a GPU.
    """

    def __init__(
        self,
        model: Any,
        *,
        dtype: torch.dtype,
        stops: Sequence[int],
        pad: int,
        banned: Sequence[int],
        rows: int,
        graphs: bool,
    ) -> None:
        self._source, self._dtype, self._rows = model, dtype, rows
        self._copy: Any = None
        self.device: torch.device = next(model.parameters()).device
        self._pad, self._graphs = pad, graphs and self.device.type == "cuda"
        self._stops = torch.tensor(list(stops), device=self.device)
        self._banned = torch.tensor(list(banned), device=self.device, dtype=torch.long)
        self._states: dict[Any, _State] = {}

    @torch.no_grad()
    def __call__(
        self,
        prompts: Prompts,
        group: int,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
    ) -> list[list[int]]:
        """Answer each prompt `group` times.

        Args:
            prompts: The questions.
            group: Completions a question.
            max_new_tokens: Where a completion is cut off.
            temperature: 0 takes the likeliest token each time.
            top_p: The likeliest tokens that together reach this probability.
            top_k: The k likeliest tokens; 0 keeps all.

        Returns:
            Tokens of the completions, the stop token included, the groups one after the other.
        """
        policy = self._policy()
        draw = _Draw(temperature, top_p, top_k, self._banned)
        chunk = max(1, self._rows // group)
        answers: list[list[int]] = []
        training = policy.training
        policy.eval()
        with _grouped_attention(policy):
            for start in range(0, len(prompts.ids), chunk):
                chosen = range(start, min(start + chunk, len(prompts.ids)))
                answers += self._decode(policy, prompts, chosen, group, max_new_tokens, draw)
        policy.train(training)
        return answers

    def _policy(self) -> Any:
        """Return the model in the type to compute in, with the weights of now."""
        parameters = list(self._source.parameters())
        if all(parameter.dtype == self._dtype for parameter in parameters):
            return self._source
        if self._copy is None:
            self._copy = deepcopy(self._source).to(self._dtype).requires_grad_(False)
        torch._foreach_copy_(list(self._copy.parameters()), [parameter.detach() for parameter in parameters])
        return self._copy

    def _decode(
        self, policy: Any, prompts: Prompts, chosen: range, group: int, max_new_tokens: int, draw: _Draw
    ) -> list[list[int]]:
        core = next(m for m in policy.modules() if hasattr(m, "visual") and hasattr(m, "language_model"))
        head = policy.get_output_embeddings()
        cache, hidden, start, mask = self._read(core, prompts, chosen)
        length, count = mask.shape[-1], len(chosen) * group
        key = (count, length, max_new_tokens, draw.key())
        state = self._states.pop(key, None) or _State(count, length, max_new_tokens, core, head, draw)
        if self._graphs:  # graphs are worth keeping, and with them the cache that they write to
            self._states = dict([*self._states.items(), (key, state)][-_KEPT_STATES:])
        state.begin(cache, mask, start, group, self._pad)
        state.take(draw(head(hidden).float().repeat_interleave(group, dim=0)), self._stops, self._pad)
        for number in range(1, max_new_tokens):
            # Once in a while the host waits, to see whether all have ended.
            if number % 16 == 0 and bool(state.finished.all()):
                break
            state.step(self._stops, self._pad, number, graphs=self._graphs)
        rows = state.output.cpu()
        ends = torch.isin(rows, self._stops.cpu())
        lengths = torch.where(ends.any(1), ends.int().argmax(1) + 1, max_new_tokens).tolist()
        return [row[:end] for row, end in zip(rows.tolist(), lengths, strict=True)]

    def _read(
        self, core: Any, prompts: Prompts, chosen: range
    ) -> tuple[Cache, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Read the prompts.

        Returns:
            The cache, the last hidden states (U, width), the next positions (U,), and what may be looked at (U, P).
        """
        ids = [prompts.ids[i] for i in chosen]
        pictures = [prompts.pictures[i] for i in chosen]
        length = -(-max(map(len, ids)) // _UNIT) * _UNIT
        table = torch.full((len(ids), length), self._pad)
        mask = torch.zeros((len(ids), length), dtype=torch.bool)
        for row, tokens in enumerate(ids):
            table[row, length - len(tokens) :] = torch.tensor(tokens)
            mask[row, length - len(tokens) :] = True
        positions = position_ids(table, [prompts.grids[p] for p in pictures], mask, core.config)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        seen = (causal & mask[:, None, :]) | torch.eye(length, dtype=torch.bool)  # padding sees itself: no empty rows
        cache = Cache()
        device = self.device
        output = core(
            input_ids=table.to(device),
            attention_mask=_additive(seen[:, None].to(device), self._dtype),
            position_ids=positions.to(device),
            pixel_values=prompts.pixels.to(device, self._dtype),
            image_grid_thw=prompts.grids,
            pictures=pictures,
            past_key_values=cache,
            use_cache=True,
        )
        start = positions.amax(dim=(0, 2)) + 1
        return cache, output.last_hidden_state[:, -1], start.to(device), mask.to(device)


class _Draw:
    """Takes one token a row: the likeliest, or a sample by the Gumbel trick (Gumbel, 1954)."""

    def __init__(self, temperature: float, top_p: float, top_k: int, banned: torch.Tensor) -> None:
        self._temperature, self._top_p, self._top_k, self._banned = temperature, top_p, top_k, banned

    def key(self) -> tuple[float, float, int]:
        return self._temperature, self._top_p, self._top_k

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.index_fill(1, self._banned, -torch.inf)
        if self._temperature == 0.0:
            return scores.argmax(dim=-1)
        scores = scores / self._temperature
        if self._top_k:
            least = scores.topk(min(self._top_k, scores.shape[1]), dim=-1).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        if self._top_p < 1.0:
            ordered, places = scores.sort(dim=-1, descending=True)
            shares = ordered.softmax(dim=-1)
            beyond = shares.cumsum(dim=-1) - shares >= self._top_p
            scores = scores.masked_fill(beyond.scatter(1, places, beyond), -torch.inf)
        noise = torch.empty_like(scores).exponential_().clamp_min_(torch.finfo(scores.dtype).tiny).log_()
        return (scores - noise).argmax(dim=-1)


class _State:
    """What a step reads and writes, always in the same place, so that a graph of it can be replayed."""

    def __init__(self, rows: int, prompt: int, room: int, core: Any, head: Any, draw: _Draw) -> None:
        self._core, self._head, self._draw, self._prompt = core, head, draw, prompt
        self._length = -(-(prompt + room) // _UNIT) * _UNIT
        device, dtype = head.weight.device, head.weight.dtype
        self.cache = Cache()
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.positions = torch.zeros(rows, dtype=torch.long, device=device)
        self.finished = torch.zeros(rows, dtype=torch.bool, device=device)
        self.output = torch.zeros((rows, room), dtype=torch.long, device=device)
        self._mask = torch.zeros((rows, 1, 1, self._length), dtype=dtype, device=device)
        self._cursor = torch.zeros(1, dtype=torch.long, device=device)
        self._graphs: dict[int, Any] = {}
        self._pool: Any = None

    def begin(self, cache: Cache, mask: torch.Tensor, start: torch.Tensor, group: int, pad: int) -> None:
        """Take over the prompts' cache, once for each completion."""
        for name in ("keys", "values"):
            ours, theirs = getattr(self.cache, name), getattr(cache, name)
            for layer, tensor in enumerate(theirs):
                if len(ours) <= layer:
                    _, heads, _, width = tensor.shape
                    ours.append(tensor.new_zeros((len(self.tokens), heads, self._length, width)))
                ours[layer][:, :, : self._prompt] = tensor.repeat_interleave(group, dim=0)
        self._mask.fill_(torch.finfo(self._mask.dtype).min)
        self._mask[:, 0, 0, : self._prompt] = _additive(mask, self._mask.dtype).repeat_interleave(group, dim=0)
        self.cache.cursor = self._cursor
        self._cursor.fill_(self._prompt)
        self.positions.copy_(start.repeat_interleave(group))
        self.finished.fill_(False)
        self.output.fill_(pad)

    def take(self, drawn: torch.Tensor, stops: torch.Tensor, pad: int) -> None:
        """Note the tokens drawn; rows that have ended go on with padding."""
        self.tokens.copy_(torch.where(self.finished, pad, drawn))
        self.finished.logical_or_(torch.isin(self.tokens, stops))
        self.output.index_copy_(1, self._cursor - self._prompt, self.tokens[:, None])

    def step(self, stops: torch.Tensor, pad: int, number: int, *, graphs: bool) -> None:
        """Read the last tokens and draw the next ones."""
        used = min(-(-(self._prompt + number) // _UNIT) * _UNIT, self._length)
        if not graphs:
            self._step(stops, pad, used)
            return
        if used not in self._graphs:
            try:
                self._graphs[used] = self._capture(stops, pad, used)
            except RuntimeError as error:
                warnings.warn(f"decoding goes on without CUDA graphs: {error}", stacklevel=2)
                self._graphs[used] = None
        if self._graphs[used] is None:
            self._step(stops, pad, used)
        else:
            self._graphs[used].replay()

    def _step(self, stops: torch.Tensor, pad: int, used: int) -> None:
        self.cache.used = used
        self._mask.index_fill_(3, self._cursor, 0.0)
        output = self._core.language_model(
            inputs_embeds=self._core.get_input_embeddings()(self.tokens[:, None]),
            attention_mask=self._mask[..., :used],
            position_ids=self.positions[None, :, None].expand(3, -1, 1),
            past_key_values=self.cache,
            use_cache=True,
        )
        drawn = self._draw(self._head(output.last_hidden_state[:, -1]).float())
        self._cursor.add_(1)
        self.positions.add_(1)
        self.take(drawn, stops, pad)

    def _capture(self, stops: torch.Tensor, pad: int, used: int) -> Any:
        """Record a step; what the warming-up changed is put back."""
        kept = [self.tokens, self.positions, self.finished, self.output, self._mask, self._cursor]
        saved = [tensor.clone() for tensor in kept]

        def restore() -> None:
            for tensor, value in zip(kept, saved, strict=True):
                tensor.copy_(value)

        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._step(stops, pad, used)
                restore()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            self._step(stops, pad, used)
        self._pool = self._pool or graph.pool()
        restore()
        return graph


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Write what may be looked at as what is added to scores: 0, or the least number."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)


@contextmanager
def _grouped_attention(model: Any) -> Iterator[None]:
    """Let single queries share their keys and values, where the library would repeat those for every query head."""
    from transformers import AttentionInterface

    AttentionInterface.register(_GROUPED, _grouped)
    config = next(m for m in model.modules() if hasattr(m, "visual")).language_model.config
    before = config._attn_implementation
    config._attn_implementation = _GROUPED
    try:
        yield
    finally:
        config._attn_implementation = before


def _grouped(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend; of one token, the query heads that share a key head stand as if they were several tokens."""
    del kwargs, module
    rows, heads, length, width = query.shape
    if length == 1:
        query = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
        output = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
        return output.reshape(rows, 1, heads, width), None
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=key.shape[1] != heads
    )
    return output.transpose(1, 2), None
