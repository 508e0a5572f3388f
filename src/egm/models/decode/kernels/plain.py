"""The operations of a decoding step in plain torch: what kernels are held against."""

from __future__ import annotations

import torch
from torch.nn.functional import linear, silu

from egm.models.decode.kernels.operations import JoinedWeight, NewTokens, Operations, RMSNorm


class PlainOperations(Operations):
    """The operations in plain torch, with the library's roundings."""

    def linear(
        self,
        x: torch.Tensor,
        weight: JoinedWeight,
        *,
        norm: RMSNorm | None = None,
        residual: torch.Tensor | None = None,
        gated: bool = False,
    ) -> torch.Tensor:
        """See `Operations.linear`."""
        if norm is not None:
            x = _normed(x, norm)
        values = weight.values.to(x.dtype)
        output = linear(x, values)
        if weight.scale is not None:
            output = (output.float() * weight.scale).to(x.dtype)
        if gated:
            gate, up = output.chunk(2, dim=1)
            output = silu(gate) * up
        return output if residual is None else residual + output

    def attend(self, new: NewTokens, keys: torch.Tensor, values: torch.Tensor, scaling: float) -> torch.Tensor:
        """See `Operations.attend`."""
        rows, key_heads, length, width = keys.shape
        heads = new.qkv.shape[1] // width - 2 * key_heads
        query, key, value = self.rotate(new.qkv, key_heads, (new.query_norm, new.key_norm), (new.cos, new.sin))
        keys.index_copy_(2, new.cursor, key[:, :, None])
        values.index_copy_(2, new.cursor, value[:, :, None])
        query = query.reshape(rows, key_heads, heads // key_heads, width)
        scores = (query.float() @ keys.float().transpose(2, 3)) * scaling  # (B, H / G, G, L)
        column = torch.arange(length, device=keys.device)
        seen = (column >= new.begin[:, None]) & (column <= new.cursor)  # (B, L)
        shares = scores.masked_fill(~seen[:, None, None], -torch.inf).softmax(dim=-1)
        return (shares @ values.float()).to(query.dtype).reshape(rows, heads * width)

    def rotate(
        self,
        qkv: torch.Tensor,
        key_heads: int,
        norms: tuple[RMSNorm, RMSNorm],
        angles: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `Operations.rotate`."""
        heads = qkv.view(len(qkv), -1, angles[0].shape[1])
        query, key, value = torch.split(heads, [heads.shape[1] - 2 * key_heads, key_heads, key_heads], dim=1)
        query, key = (_rotated(_normed(x, norm), *angles) for x, norm in zip((query, key), norms, strict=True))
        return query, key, value.contiguous()

    def likeliest(self, logits: torch.Tensor, banned: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Operations.likeliest`."""
        logits = logits.float().masked_fill(banned, -torch.inf)
        most, token = logits.max(dim=1)
        return token, most - logits.logsumexp(dim=1)


def _normed(x: torch.Tensor, norm: RMSNorm) -> torch.Tensor:
    wide = x.float()
    return norm.gain * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)).to(x.dtype)


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate heads, shape (B, heads, D): the halves of a head are the two coordinates."""
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat([-second, first], dim=-1) * sin[:, None]
