"""The operations that a decoding step is made of, and the joined weights that they take.

In shapes, B is the rows of a batch, K and N the inputs and outputs of a projection, H the query heads, G those that
share a key head, D a head's width, L the length of the cache, and V the vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch

FP8 = torch.float8_e4m3fn
_FP8_MOST = 448.0  # the largest number of that type
_ROWS_ROUNDED = 4096  # at a time: a float32 copy of a large matrix is twice as large


@dataclass(frozen=True, slots=True)
class JoinedWeight:
    """Weights of projections that read the same input, one below the other.

    Attributes:
        values: Shape (N, K).
        scale: What each output is multiplied by, float32, shape (N,), where the values are fp8; else None.
    """

    values: torch.Tensor
    scale: torch.Tensor | None = None


class RMSNorm(NamedTuple):
    """A norm by the root of the mean square: the gain, shape (K,), and what is added to that mean."""

    gain: torch.Tensor
    eps: float


class NewTokens(NamedTuple):
    """What attention is asked with: a token a row, as it comes out of the joined projection.

    Attributes:
        qkv: Queries, keys and values, shape (B, (H + 2 H / G) D).
        query_norm, key_norm: The norms of their heads.
        cos, sin: Of the tokens' angles, in the type of `qkv`, shape (B, D).
        cursor: The column of the cache that they are written to, on the device, shape (1,).
        begin: The first column that each row looks at, shape (B,); it looks at all from there to its own token.
    """

    qkv: torch.Tensor
    query_norm: RMSNorm
    key_norm: RMSNorm
    cos: torch.Tensor
    sin: torch.Tensor
    cursor: torch.Tensor
    begin: torch.Tensor


class Operations(ABC):
    """One way to compute a decoding step, and the layers that read a prompt."""

    @abstractmethod
    def linear(
        self,
        x: torch.Tensor,
        weight: JoinedWeight,
        *,
        norm: RMSNorm | None = None,
        residual: torch.Tensor | None = None,
        gated: bool = False,
    ) -> torch.Tensor:
        """Project, shape (B, K) to (B, N).

        Args:
            x: The input.
            weight: The weights.
            norm: Of the input, before it is projected.
            residual: What is added, shape (B, N); it is left as it is.
            gated: Whether the first half of the outputs, through SiLU, multiplies the second: N / 2 come out.
        """

    @abstractmethod
    def attend(self, new: NewTokens, keys: torch.Tensor, values: torch.Tensor, scaling: float) -> torch.Tensor:
        """Norm and rotate queries and keys, write keys and values to the cache, and attend over it.

        Args:
            new: The tokens.
            keys: The cache's, shape (B, H / G, L, D); written at the cursor.
            values: Likewise.
            scaling: What scores are multiplied by.

        Returns:
            The heads' outputs, shape (B, H D).
        """

    @abstractmethod
    def rotate(
        self,
        qkv: torch.Tensor,
        key_heads: int,
        norms: tuple[RMSNorm, RMSNorm],
        angles: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Take queries, keys and values apart, of any number of tokens; norm and rotate queries and keys.

        Args:
            qkv: Queries, keys and values, shape (B, (H + 2 H / G) D).
            key_heads: H / G.
            norms: Of the heads of queries, and of keys.
            angles: Their cosines and sines, in the type of `qkv`, shape (B, D).

        Returns:
            Queries, shape (B, H, D), keys and values, shape (B, H / G, D), each in memory of its own.
        """

    @abstractmethod
    def likeliest(self, logits: torch.Tensor, banned: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the likeliest token of each row, the first of equals.

        Args:
            logits: Shape (B, V).
            banned: Which tokens are never taken, and have no share, shape (V,).

        Returns:
            The tokens, and the log-probability of each, in float32, both of shape (B,).
        """


def quantize_fp8(weight: torch.Tensor) -> JoinedWeight:
    """Round weights (N, K) to fp8 (E4M3), each output by a scale of its own, so that its largest weight is the type's.

    Rounding is to the nearest, so an output of random weights is off by about 2.6 % of its size.
    """
    most = torch.maximum(weight.amax(dim=1), -weight.amin(dim=1)).float().clamp(min=1e-12)
    scale = most / _FP8_MOST
    values = torch.empty(weight.shape, dtype=FP8, device=weight.device)
    for start in range(0, len(weight), _ROWS_ROUNDED):
        rows = slice(start, start + _ROWS_ROUNDED)
        values[rows] = (weight[rows].float() / scale[rows, None]).to(FP8)
    return JoinedWeight(values, scale)
