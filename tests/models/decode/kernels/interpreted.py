"""Runs the kernels, and prints how far each is from plain torch, as JSON: to be run with TRITON_INTERPRET=1.

It is a process of its own, as Triton decides at import whether it interprets.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from egm.models.decode.kernels import configurations as table
from egm.models.decode.kernels.operations import JoinedWeight, NewTokens, RMSNorm, quantize_fp8
from egm.models.decode.kernels.plain import PlainOperations

plain = PlainOperations()
errors: dict[str, float] = {}


def off(ours: torch.Tensor, truth: torch.Tensor) -> float:
    return float((ours.double() - truth.double()).norm() / truth.double().norm().clamp(min=1e-30))


def projections(kernels: Any) -> None:
    """Sizes that no tile divides, so that every mask is looked at."""
    norm = RMSNorm(torch.rand(150) + 0.5, 1e-6)
    tile, matrix = table.VectorTile(16, 64, 4), table.MatrixTile(32, 64, 2, 4)
    for fp8 in (False, True):
        values = torch.randn(2 * 37, 150) * 0.1
        weight = quantize_fp8(values) if fp8 else JoinedWeight(values)
        for gated in (False, True):
            for rows in (1, 3, 19):
                x = torch.randn(rows, 150) * 3
                residual = None if gated else torch.randn(rows, 74)
                name = f"fp8={fp8} gated={gated} rows={rows}"
                truth = plain.linear(x, weight, norm=norm, residual=residual, gated=gated)
                if rows <= 4:
                    ours = kernels.multiply_vectors(x, weight, tile, norm=norm, residual=residual, gated=gated)
                    errors[f"vectors {name}"] = off(ours, truth)
                normed = kernels.norm(x, norm)
                ours = kernels.multiply_matrix(normed, weight, matrix, residual=residual, gated=gated)
                errors[f"matrix {name}"] = off(ours, truth)
    x, residual = torch.randn(4, 64), torch.randn(4, 64)
    for rows in (4, 3):  # the way is chosen by rows
        table.VECTOR_ROWS.update({False: rows, True: rows})
        some: dict[str, Any] = {"norm": RMSNorm(torch.ones(64), 1e-6), "residual": residual}
        for fp8 in (False, True):
            weight = quantize_fp8(torch.eye(64)) if fp8 else JoinedWeight(torch.eye(64))
            ours, truth = (way.linear(x, weight, **some) for way in (kernels, plain))
            errors[f"chosen fp8={fp8} limit={rows}"] = off(ours, truth)
    weight = JoinedWeight(torch.randn(64, 64))
    errors["chosen gated"] = off(kernels.linear(x, weight, gated=True), plain.linear(x, weight, gated=True))


def attention(kernels: Any) -> None:
    for rows, heads, key_heads, width, cursor, programs in (
        (1, 8, 2, 32, 200, 16),
        (3, 4, 4, 16, 130, 264),
        (2, 6, 2, 64, 190, 1),
        (2, 4, 2, 16, 0, 8),
    ):
        table.PROGRAMS = programs  # type: ignore[misc]
        qkv = torch.randn(rows, (heads + 2 * key_heads) * width)
        keys, values = torch.randn(2, rows, key_heads, 256, width)
        angle = torch.rand(rows, width // 2).repeat(1, 2) * 6
        norms = [RMSNorm(torch.rand(width) + 0.5, eps) for eps in (1e-6, 1e-3)]
        begin = torch.randint(0, cursor // 2 + 1, (rows,))
        new = NewTokens(qkv, *norms, angle.cos(), angle.sin(), torch.tensor([cursor]), begin)
        theirs = [keys.clone(), values.clone()]
        truth = plain.attend(new, *theirs, 0.2)
        for cache in (keys, values):  # what a row does not see may be anything
            cache[:, :, cursor:] = torch.nan
            for row in range(rows):
                cache[row, :, : begin[row]] = torch.nan
        name = f"rows={rows} heads={heads}/{key_heads} cursor={cursor}"
        errors[f"attention {name}"] = off(kernels.attend(new, keys, values, 0.2), truth)
        for ours, true in zip((keys, values), theirs, strict=True):
            errors[f"cache {name}"] = off(ours[:, :, cursor], true[:, :, cursor])


def rotation(kernels: Any) -> None:
    for rows, heads, key_heads, width in ((3, 8, 2, 32), (5, 5, 1, 16)):
        qkv = torch.randn(rows, (heads + 2 * key_heads) * width)
        angle = torch.rand(rows, width // 2).repeat(1, 2) * 6
        norms = tuple(RMSNorm(torch.rand(width) + 0.5, eps) for eps in (1e-6, 1e-3))
        ways = [way.rotate(qkv, key_heads, norms, (angle.cos(), angle.sin())) for way in (kernels, plain)]
        for name, ours, truth in zip(("queries", "keys", "values"), *ways, strict=True):
            errors[f"rotated {name} of {heads}/{key_heads}"] = off(ours, truth)


def likeliest(kernels: Any) -> None:
    logits = torch.randn(3, 5000)
    logits[0, 4999] = 9.0  # banned
    logits[1, [3, 4500]] = 8.0  # the first of equals
    logits[2, :2500] = -torch.inf
    banned = torch.zeros(5000, dtype=torch.bool)
    banned[4999] = True
    ours, truth = kernels.likeliest(logits, banned), plain.likeliest(logits, banned)
    assert truth[0][1] == 3
    errors["likeliest tokens"] = float((ours[0] != truth[0]).sum())
    errors["likeliest logprobs"] = off(ours[1], truth[1])


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    from egm.models.decode.kernels.triton_operations import TritonOperations

    for part in (projections, attention, rotation, likeliest):
        part(TritonOperations())
    sys.stdout.write(json.dumps(errors))
