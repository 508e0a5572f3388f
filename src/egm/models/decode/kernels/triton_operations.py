"""The operations of a decoding step by the kernels in Triton; products of many rows by the library."""

from __future__ import annotations

from typing import Any

import torch

from egm.models.decode.kernels import configurations as table
from egm.models.decode.kernels import triton_attention, triton_likeliest, triton_linear
from egm.models.decode.kernels.operations import JoinedWeight, NewTokens, Operations, RMSNorm

_VOCABULARY_BLOCK = 2048
_HEADS_BLOCK = 8  # heads that a program rotates


class TritonOperations(Operations):
    """The operations in Triton.

    Args:
        pdl: Whether a kernel may start while the one before it ends; for GPUs since Hopper.
    """

    def __init__(self, *, pdl: bool = False) -> None:
        self.pdl = pdl

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
        rows, fp8 = x.shape[0], weight.scale is not None
        if rows <= table.VECTOR_ROWS[fp8]:
            tile = table.vector_tile(*_shape(weight), fp8, gated)
            return self.multiply_vectors(x, weight, tile, norm=norm, residual=residual, gated=gated)
        if norm is not None:
            x = self.norm(x, norm)
        matrix = table.matrix_tile(*_shape(weight), fp8, rows)
        if matrix is not None:
            return self.multiply_matrix(x, weight, matrix, residual=residual, gated=gated)
        if residual is not None:
            return torch.addmm(residual, x, weight.values.t())
        output = torch.mm(x, weight.values.t())
        return self.gate(output) if gated else output

    def multiply_vectors(
        self,
        x: torch.Tensor,
        weight: JoinedWeight,
        tile: table.VectorTile,
        *,
        norm: RMSNorm | None = None,
        residual: torch.Tensor | None = None,
        gated: bool = False,
    ) -> torch.Tensor:
        """Project one to four rows; see `Operations.linear`."""
        outputs, inputs = _outputs(weight, gated), x.shape[1]
        output = x.new_empty((x.shape[0], outputs))
        triton_linear._multiply_vectors[(_parts(outputs, tile.outputs),)](
            *(x, x if norm is None else norm.gain, weight.values, _or(weight.scale, x), _or(residual, x), output),
            *(0.0 if norm is None else norm.eps, x.shape[0], outputs, inputs),
            *(norm is not None, gated, weight.scale is not None, residual is not None),
            *(tile.outputs, tile.inputs, tile.bypass),
            **self._launch(tile.warps),
        )
        return output

    def multiply_matrix(
        self,
        x: torch.Tensor,
        weight: JoinedWeight,
        tile: table.MatrixTile,
        *,
        residual: torch.Tensor | None = None,
        gated: bool = False,
    ) -> torch.Tensor:
        """Project any number of rows by matrix units; see `Operations.linear`."""
        outputs, inputs, rows = _outputs(weight, gated), x.shape[1], x.shape[0]
        columns = table.matrix_rows(rows)
        output = x.new_empty((rows, outputs))
        triton_linear._multiply_matrix[(_parts(outputs, tile.outputs), _parts(rows, columns))](
            *(x, weight.values, _or(weight.scale, x), _or(residual, x), output, rows, outputs, inputs),
            *(gated, weight.scale is not None, residual is not None),
            *(columns, tile.outputs, tile.inputs, tile.stages, _precision(x)),
            **self._launch(tile.warps),
        )
        return output

    def norm(self, x: torch.Tensor, norm: RMSNorm) -> torch.Tensor:
        """Norm rows, shape (B, K)."""
        output = torch.empty_like(x)
        block = 1 << (x.shape[1] - 1).bit_length()
        triton_linear._norm_rows[(x.shape[0],)](x, norm.gain, output, norm.eps, x.shape[1], block, **self._launch(8))
        return output

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply the second half of rows by SiLU of the first, shape (B, 2 N) to (B, N)."""
        rows, outputs = x.shape[0], x.shape[1] // 2
        output = x.new_empty((rows, outputs))
        triton_linear._gate_rows[(rows, _parts(outputs, 1024))](x, output, outputs, 1024, **self._launch(4))
        return output

    def attend(self, new: NewTokens, keys: torch.Tensor, values: torch.Tensor, scaling: float) -> torch.Tensor:
        """See `Operations.attend`."""
        rows, key_heads, length, width = keys.shape
        heads = new.qkv.shape[1] // width - 2 * key_heads
        parts, tile = table.attention_parts(rows * key_heads), table.ATTENTION
        output = new.qkv.new_empty((rows, heads * width))
        partial = torch.empty((rows * heads, parts, width), dtype=torch.float32, device=keys.device)
        sums = torch.empty((rows * heads, parts, 2), dtype=torch.float32, device=keys.device)
        triton_attention._attend_part[(rows, key_heads, parts)](
            *(new.qkv, new.query_norm.gain, new.key_norm.gain, new.cos, new.sin, new.begin, new.cursor),
            *(keys, values, output, partial, sums, length, new.query_norm.eps, new.key_norm.eps, scaling),
            *(key_heads, heads // key_heads, max(16, 1 << (heads // key_heads - 1).bit_length()), width),
            *(tile.columns, parts, tile.stages, _precision(new.qkv)),
            **self._launch(tile.warps),
        )
        if parts > 1:
            triton_attention._merge_parts[(rows * heads,)](partial, sums, output, width, parts, **self._launch(1))
        return output

    def rotate(
        self,
        qkv: torch.Tensor,
        key_heads: int,
        norms: tuple[RMSNorm, RMSNorm],
        angles: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `Operations.rotate`."""
        rows, width = angles[0].shape
        heads = qkv.shape[1] // width - 2 * key_heads
        query, key, value = (qkv.new_empty((rows, count, width)) for count in (heads, key_heads, key_heads))
        triton_attention._rotate_heads[(rows, _parts(heads + 2 * key_heads, _HEADS_BLOCK))](
            *(qkv, norms[0].gain, norms[1].gain, *angles, query, key, value, norms[0].eps, norms[1].eps),
            *(heads, key_heads, width, _HEADS_BLOCK),
            **self._launch(4),
        )
        return query, key, value

    def likeliest(self, logits: torch.Tensor, banned: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Operations.likeliest`."""
        rows, vocabulary = logits.shape
        parts, device = _parts(vocabulary, _VOCABULARY_BLOCK), logits.device
        tops, sums = (torch.empty((rows, parts), dtype=torch.float32, device=device) for _ in range(2))
        places = torch.empty((rows, parts), dtype=torch.int32, device=device)
        tokens = torch.empty(rows, dtype=torch.long, device=device)
        logprobs = torch.empty(rows, dtype=torch.float32, device=device)
        triton_likeliest._scan_part[(rows, parts)](
            logits, banned.view(torch.int8), tops, places, sums, vocabulary, parts, _VOCABULARY_BLOCK, **self._launch(4)
        )
        block = 1 << (parts - 1).bit_length()
        triton_likeliest._join_row[(rows,)](tops, places, sums, tokens, logprobs, parts, block, **self._launch(1))
        return tokens, logprobs

    def _launch(self, warps: int) -> dict[str, Any]:
        """Return how a kernel is launched; the keyword of the launcher only where it is on, as not all know it."""
        options: dict[str, Any] = {"num_warps": warps, "enable_fp_fusion": True, "PDL": self.pdl}
        return options | {"launch_pdl": True} if self.pdl else options


def _shape(weight: JoinedWeight) -> tuple[int, int]:
    return weight.values.shape[0], weight.values.shape[1]


def _outputs(weight: JoinedWeight, gated: bool) -> int:
    return int(weight.values.shape[0]) // (2 if gated else 1)


def _or(tensor: torch.Tensor | None, other: torch.Tensor) -> torch.Tensor:
    """Return a tensor to point to: a kernel does not read where it is told that there is none."""
    return other if tensor is None else tensor


def _parts(count: int, size: int) -> int:
    return -(-count // size)


def _precision(x: torch.Tensor) -> str:
    """Return how float32 is multiplied: in full, for TF32 would decide tokens."""
    return "ieee" if x.dtype == torch.float32 else "tf32"
