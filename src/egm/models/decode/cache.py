"""The static KV cache, and grouped-query attention over it: what decoding keeps of earlier tokens, and looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from egm.models.find_core import core_of

_GROUPED = "egm_grouped"


class StaticKVCache:
    """Keys and values of all layers, allocated once and written in place, so that a CUDA graph can be replayed.

    transformers takes any object with `update` and `get_seq_length` for a cache.

    Attributes:
        keys: Of each layer, shape (B, key heads, length, head width).
        values: Likewise.
        cursor: Where the next token is written, shape (1,): on the device, so that a replayed graph finds it moved.
            None while the prompts are read.
        used: How much of the length is looked at; a number of the host, so each value has a graph of its own.
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
        if self.cursor is None:  # prefill: the prompts' own keys are all there is, each layer's in its turn
            self.keys.append(key)
            self.values.append(value)
            return key, value
        self.keys[layer].index_copy_(2, self.cursor, key)
        self.values[layer].index_copy_(2, self.cursor, value)
        return self.keys[layer][:, :, : self.used], self.values[layer][:, :, : self.used]

    def get_seq_length(self, layer: int = 0) -> int:  # noqa: ARG002 - the library's signature
        """Return how much is in use."""
        return self.used


class PrefixedKVCache(StaticKVCache):
    """Keys and values of rows that go on behind prefixes which were read before.

    Args:
        keys: Of each layer, those of the prefixes, shape (prefixes, key heads, T, head width), padded on the right.
        values: Likewise.
        index: The prefix of each row, shape (B,).
    """

    def __init__(self, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor], index: torch.Tensor) -> None:
        super().__init__()
        self._prefixes, self._index = (keys, values), index

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int, *args: Any, **kwargs: Any) -> Any:
        """Keep each row's prefix and, behind it, its new tokens; return both."""
        keys, values = (tensors[layer].index_select(0, self._index) for tensors in self._prefixes)
        return super().update(torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2), layer, *args, **kwargs)


def columns_seen(columns: torch.Tensor, begin: torch.Tensor, length: int) -> torch.Tensor:
    """Return which of so many columns tokens look at: from `begin` (1,) to their own (T,); shape (T, length)."""
    every = torch.arange(length, device=columns.device)
    return (every >= begin) & (every <= columns[:, None])


def additive_mask(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Write what may be looked at as an additive attention mask: 0, or the least number (-inf could become nan)."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)


def tokens_at(tensors: Sequence[torch.Tensor], places: torch.Tensor) -> torch.Tensor:
    """Find tokens in n tensors of keys or values (U, heads, P, width).

    Args:
        tensors: The tensors.
        places: Which of all tokens, laid end to end, to take: shape (B, span).

    Returns:
        Shape (n, B, heads, span, width).
    """
    # They come as projections leave them, a token's heads side by side: to lay them so again is no copy.
    laid = [tensor.transpose(1, 2).flatten(0, 1) for tensor in tensors]  # (U * P, heads, width)
    tokens = laid[0][None] if len(laid) == 1 else torch.stack(laid)
    chosen = tokens.index_select(1, places.flatten())
    return chosen.view(len(laid), *places.shape, *chosen.shape[2:]).transpose(2, 3)


@contextmanager
def grouped_attention(model: Any) -> Iterator[None]:
    """Let single queries share their keys and values, where the library would repeat those for every query head."""
    from transformers import AttentionInterface

    AttentionInterface.register(_GROUPED, _grouped)
    config = core_of(model).language_model.config
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
        # (B, heads, 1, D) -> (B, key heads, heads / key heads, D): one token has no order among its queries to keep,
        # so each key is read once for all heads that share it, and the mask (B, 1, 1, length) broadcasts over them.
        query = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
        output = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
        return output.reshape(rows, 1, heads, width), None
    return attend_tokens(query, key, value, attention_mask, scaling), None


def attend_tokens(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    """Attend with several tokens a row, each to what stands before it where there is no mask.

    Args:
        query: Shape (B, heads, T, D).
        key: Shape (B, key heads, columns, D).
        value: Likewise.
        mask: Additive, shape (B, 1, T, columns); None where the columns are the tokens'.
        scaling: What scores are multiplied by; None takes D ** -0.5.

    Returns:
        Shape (B, T, heads, D).
    """
    heads = query.shape[1]
    if mask is not None:  # kernels that take a mask want a key head for every query head
        key, value = (tensor.repeat_interleave(heads // key.shape[1], dim=1) for tensor in (key, value))
    how: dict[str, Any] = {"attn_mask": mask, "is_causal": mask is None, "scale": scaling}
    output = scaled_dot_product_attention(query, key, value, enable_gqa=key.shape[1] != heads, **how)
    return output.transpose(1, 2)
