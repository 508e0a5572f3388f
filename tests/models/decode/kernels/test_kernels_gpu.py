"""The kernels on a GPU, against plain torch, with the shapes of Qwen3-VL-8B."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from egm.models.decode.kernels import configurations as table
from egm.models.decode.kernels.operations import JoinedWeight, NewTokens, RMSNorm, quantize_fp8
from egm.models.decode.kernels.plain import PlainOperations

pytestmark = pytest.mark.gpu


@pytest.fixture(params=[False, True], ids=["plain launch", "PDL"])
def kernels(request: pytest.FixtureRequest) -> Any:
    if request.param and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("PDL is for GPUs since Hopper")
    from egm.models.decode.kernels.triton_operations import TritonOperations

    return TritonOperations(pdl=request.param)


def off(ours: torch.Tensor, truth: torch.Tensor) -> float:
    return float((ours.double() - truth.double()).norm() / truth.double().norm())


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize(
    ("outputs", "inputs", "gated"), [(6144, 4096, False), (24576, 4096, True), (4096, 12288, False)]
)
def test_products(kernels: Any, outputs: int, inputs: int, gated: bool, fp8: bool) -> None:
    make: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
    values = torch.randn(outputs, inputs, **make) * inputs**-0.5
    weight = quantize_fp8(values) if fp8 else JoinedWeight(values)
    exact = values.double() if weight.scale is None else weight.values.double() * weight.scale.double()[:, None]
    for rows in (1, 2, 3, 4, 5, 8, 64, 65):
        x, residual = torch.randn(rows, inputs, **make), None if gated else torch.randn(rows, outputs, **make)
        norm = RMSNorm(torch.rand(inputs, **make) + 0.5, 1e-6)
        truth = PlainOperations().linear(
            x.double(),
            JoinedWeight(exact),
            norm=RMSNorm(norm.gain.double(), norm.eps),
            residual=None if residual is None else residual.double(),
            gated=gated,
        )
        assert off(kernels.linear(x, weight, norm=norm, residual=residual, gated=gated), truth) < 1e-2
        tile = table.MatrixTile(64, 64, 4, 4)
        ours = kernels.multiply_matrix(kernels.norm(x, norm), weight, tile, residual=residual, gated=gated)
        assert off(ours, truth) < 1e-2


@pytest.mark.parametrize("rows", [1, 3, 8, 64, 300])
def test_attention_and_the_likeliest(kernels: Any, rows: int) -> None:
    make: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
    norm, plain = RMSNorm(torch.rand(128, **make) + 0.5, 1e-6), PlainOperations()
    for cursor in (0, 70, 385, 1023):
        angle = torch.rand(rows, 64, device="cuda").repeat(1, 2) * 6
        new = NewTokens(
            torch.randn(rows, 48 * 128, **make),
            *(norm, norm, angle.cos().bfloat16(), angle.sin().bfloat16(), torch.tensor([cursor], device="cuda")),
            torch.randint(0, cursor // 2 + 1, (rows,), device="cuda"),
        )
        keys, values = torch.randn(2, rows, 8, 1024, 128, **make)
        theirs = [keys.clone(), values.clone()]
        truth = plain.attend(new, *theirs, 0.1)
        for cache in (keys, values):
            cache[:, :, cursor:] = torch.nan
        assert off(kernels.attend(new, keys, values, 0.1), truth) < 1e-2
        for ours, true in zip((keys, values), theirs, strict=True):
            assert off(ours[:, :, cursor], true[:, :, cursor]) < 5e-3
    logits = torch.randn(rows, 151936, **make)
    banned = torch.zeros(151936, dtype=torch.bool, device="cuda").index_fill_(0, logits.argmax(1), True)
    (tokens, logprobs), (wanted, shares) = (way.likeliest(logits, banned) for way in (kernels, plain))
    assert torch.equal(tokens, wanted)
    assert torch.allclose(logprobs, shares, atol=1e-4)


@pytest.mark.parametrize("tokens", [1, 384, 1000])
def test_heads_are_rotated(kernels: Any, tokens: int) -> None:
    make: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
    norms = RMSNorm(torch.rand(128, **make) + 0.5, 1e-6), RMSNorm(torch.rand(128, **make) + 0.5, 1e-5)
    angle, qkv = torch.rand(tokens, 64, device="cuda").repeat(1, 2) * 6, torch.randn(tokens, 48 * 128, **make)
    angles = angle.cos().bfloat16(), angle.sin().bfloat16()
    for ours, truth in zip(*(way.rotate(qkv, 8, norms, angles) for way in (kernels, PlainOperations())), strict=True):
        assert ours.is_contiguous()
        assert off(ours, truth) < 5e-3
