"""Sequences end to end: a batch without padding, attention within each sequence, output for the answers alone.

The official recipe calls it sequence flattening. A batch becomes one row; attention reads where each sequence begins,
and the output layer, whose vocabulary of 150,000 words costs more memory than all else, sees only the positions that
predict a token of an answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import torch
from torch.nn import functional

from egm.models.fast.vision_attention import one_call
from egm.training.data.collate import IGNORED

ATTENTION: Final = "egm_flat"
"""What transformers knows this attention by."""

_LENGTHS = "egm_lengths"


class Flattening:
    """A collator whose batches are laid end to end.

    Args:
        collator: An `egm.training.data.collate.Collator`.
    """

    def __init__(self, collator: Callable[[Sequence[dict[str, Any]]], dict[str, Any]]) -> None:
        self.collator = collator

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Make the batch of some rows, given as `{"row": number}`."""
        return flatten(self.collator(features))


def flatten(batch: dict[str, Any]) -> dict[str, Any]:
    """Lay the sequences of a batch end to end.

    Args:
        batch: What a `Collator` returns: sequences padded on the right, each ending with a token of its answer.

    Returns:
        The batch with `input_ids` and `labels` of shape (1, N), `position_ids` (3, 1, N), where each sequence begins in
        `cu_seq_lens_q`, the lengths as numbers of the host, and `logits_to_keep`, the positions before an answer's
        tokens.
    """
    labels = batch["labels"]  # (B, T)
    # A sequence ends with the last token of its answer, so its length is the place of its last label, from 1. The token
    # of the padding may occur in a text, and tells nothing.
    places = (labels != IGNORED).int() * torch.arange(1, labels.shape[1] + 1)
    lengths = places.amax(1)  # (B,)
    real = torch.arange(labels.shape[1])[None] < lengths[:, None]  # (B, T), N of them true
    flat = labels[real][None]  # (1, N)
    return batch | {
        "input_ids": batch["input_ids"][real][None],
        "labels": flat,
        "position_ids": batch["position_ids"][:, real][:, None],
        "cu_seq_lens_q": functional.pad(lengths.cumsum(0), (1, 0)).int(),
        # The first token of a sequence is never a target, so none is predicted from the sequence before.
        "logits_to_keep": (flat[0, 1:] != IGNORED).nonzero()[:, 0],
        _LENGTHS: lengths.tolist(),
    }


def use_flat_attention(model: Any) -> None:
    """Make the language model read where sequences begin; without that it attends as `sdpa` does."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(ATTENTION, flat_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.config.get_text_config()._attn_implementation = ATTENTION


def flat_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    egm_lengths: Sequence[int] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally within each sequence, where transformers calls for attention.

    Args:
        module: The attention layer.
        query: Shape (1, heads, N, D).
        key: Shape (1, key heads, N, D).
        value: Likewise.
        attention_mask: None where there are lengths.
        scaling: Factor of the scores.
        dropout: Taken by `sdpa` only; Qwen3-VL has none.
        cu_seq_lens_q: Where each sequence begins, and the end, int32.
        egm_lengths: The same as lengths on the host; without them attention is `sdpa`'s.
        **kwargs: The rest of what transformers passes.

    Returns:
        Shape (1, N, heads, D), and nothing for the weights.
    """
    if egm_lengths is None or cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if one_call(value.device, value.dtype, value.shape[-1]):
        # The kernel takes (N, heads, D); rotary embeddings in float32 may have widened queries and keys.
        q, k, v = (x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value))
        longest = max(egm_lengths)
        kernel, shares_heads = _varlen()
        if not shares_heads:
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        options = {"enable_gqa": True} if shares_heads else {}
        starts = cu_seq_lens_q
        # A window that is open to the left and closed to the right is causal attention.
        mixed = kernel(q, k, v, starts, starts, longest, longest, scale=scaling, window_size=(-1, 0), **options)
        return mixed[None], None
    # Elsewhere sequence by sequence: (1, heads, length, D) each.
    pieces = [
        functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
        for q, k, v in zip(*(torch.split(x, list(egm_lengths), dim=2) for x in (query, key, value)), strict=True)
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2), None


@lru_cache(maxsize=1)
def _varlen() -> tuple[Callable[..., Any], bool]:
    """Return torch's kernel, and whether it takes fewer heads of keys than of queries."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn, "enable_gqa" in inspect.signature(varlen_attn).parameters


__all__ = ["ATTENTION", "Flattening", "flat_attention", "flatten", "use_flat_attention"]
