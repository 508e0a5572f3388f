"""Attention of the vision tower on a batch: images of equal size in one call, or all in one where the GPU can."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional

from egm.models.fast.vision_plan import VisionPlan


class _Rotate(torch.autograd.Function):
    """Rotary embedding in float32, keeping only the tables for the way back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        (a, b), (cos_a, cos_b), (sin_a, sin_b) = (tensor.chunk(2, dim=-1) for tensor in (x, cos, sin))
        return _joined(x, (a * cos_a).addcmul_(b, sin_a, value=-1), (b * cos_b).addcmul_(a, sin_b))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = gradients
        (a, b), (cos_a, cos_b), (sin_a, sin_b) = (t.chunk(2, dim=-1) for t in (gradient, *ctx.saved_tensors))
        back_a, back_b = (a * cos_a).addcmul_(b, sin_b), (b * cos_b).addcmul_(a, sin_a, value=-1)
        return _joined(gradient, back_a, back_b), None, None


def _joined(like: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    result = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    half = a.shape[-1]
    result[..., :half], result[..., half:] = a, b
    return result


def apply_rotary(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Apply rotary embedding: `x * cos + rotate_half(x) * sin`, in float32, returned in the type of `x`.

    Args:
        x: Queries and keys, shape (N, 2, heads, D).
        cos: Cosines, float32, shape (N, D).
        sin: Sines, likewise.
    """
    return _Rotate.apply(x, cos.float()[:, None, None], sin.float()[:, None, None])  # type: ignore[no-any-return]


def attend_frames(attention: Any, hidden: torch.Tensor, plan: VisionPlan, tables: tuple[Any, Any]) -> torch.Tensor:
    """Run one attention layer of the vision tower, as the stock layer does, on all frames of a batch.

    Args:
        attention: The stock layer, for its projections and its scale.
        hidden: Shape (N, width).
        plan: Where each frame begins.
        tables: Cosines and sines, each of shape (N, D).

    Returns:
        Shape (N, width).
    """
    count = hidden.shape[0]
    projected = attention.qkv(hidden).view(count, 3, attention.num_heads, -1)
    query, key = apply_rotary(projected[:, :2], *tables).unbind(1)
    mixed = _mix(query, key, projected[:, 2], plan, float(attention.scaling))
    return attention.proj(mixed.reshape(count, -1))  # type: ignore[no-any-return]


def _mix(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: VisionPlan, scale: float) -> torch.Tensor:
    """Mix values, all of shape (N, heads, D)."""
    if len(plan.runs) > 1 and one_call(q.device, q.dtype, q.shape[-1]) and abs(scale * q.shape[-1] ** 0.5 - 1) < 1e-6:
        try:
            kernel = _varlen()
            assert kernel is not None
            return kernel(q, k, v, plan.cu_seqlens, plan.cu_seqlens, plan.max_seqlen, plan.max_seqlen)  # type: ignore[no-any-return]
        except (RuntimeError, NotImplementedError, TypeError) as error:
            _give_up(error)
    pieces, start = [], 0
    for frames, length in plan.runs:
        stop = start + frames * length
        a, b, c = (x[start:stop].view(frames, length, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        piece = functional.scaled_dot_product_attention(a, b, c, scale=scale)
        pieces.append(piece.transpose(1, 2).reshape(stop - start, *q.shape[1:]))
        start = stop
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


_gave_up: list[str] = []


def _give_up(error: Exception) -> None:
    if not _gave_up:
        warnings.warn(f"images of different sizes go through attention size by size: {error}", stacklevel=2)
    _gave_up.append(str(error))


@lru_cache(maxsize=1)
def _varlen() -> Callable[..., Any] | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


def one_call(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Tell whether frames of different sizes can share one call: on a recent GPU, in half precision."""
    return (
        device.type == "cuda"
        and dtype in (torch.bfloat16, torch.float16)
        and head_dim % 8 == 0
        and head_dim <= 256
        and not _gave_up
        and _varlen() is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )
