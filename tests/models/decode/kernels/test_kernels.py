"""The kernels: interpreted, against plain torch, and compiled by Triton for a GPU that need not be here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from egm.models.decode.kernels import configurations as table
from egm.models.decode.kernels.operations import quantize_fp8

SCRIPT = Path(__file__).with_name("interpreted.py")


def test_interpreted_kernels_compute_what_plain_torch_does() -> None:
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    result = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    errors = json.loads(result.stdout)
    assert {name: error for name, error in errors.items() if not error < 2e-6} == {}  # nan is not below
    assert len(errors) == 2 * 2 * (2 + 3) + 5 + 2 * 4 + 2 * 3 + 2


HIDDEN, GATED, HEADS = 4096, 12288, 6144
BF16, FP8, FLOAT = "*bf16", "*fp8e4nv", "*fp32"


def compiled(kernel: Any, constants: dict[str, Any], types: dict[str, str], warps: int) -> Any:
    """Compile a kernel for a Hopper GPU, with pointers aligned as torch's are."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    types = {name: types.get(name, BF16) for name in names if name not in constants}
    signature = {name: types.get(name, "constexpr") for name in names}
    aligned = {
        (place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if types.get(name, "")[:1] == "*"
    }
    values = {(names.index(name),): value for name, value in constants.items()}
    options = {"num_warps": warps, "enable_fp_fusion": True} | ({"launch_pdl": True} if constants["PDL"] else {})
    target = GPUTarget("cuda", 90, 32)
    return triton.compile(ASTSource(kernel, signature, values, aligned), target=target, options=options)


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_products_compile_for_a_hopper_gpu(
    fp8: bool, gated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    from egm.models.decode.kernels import triton_linear

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    outputs = GATED if gated else HEADS
    types = {"weight_ptr": FP8 if fp8 else BF16, "scale_ptr": FLOAT, "eps": "fp32", "rows": "i32"}
    common: dict[str, Any] = {"N": outputs, "K": HIDDEN, "GATED": gated, "SCALED": fp8, "RESIDUAL": not gated}
    tile = table.vector_tile(2 * outputs if gated else outputs, HIDDEN, fp8, gated)
    constants = common | {"M": 1, "NORM": True, "BLOCK_N": tile.outputs, "BLOCK_K": tile.inputs, "BYPASS": True}
    vectors = compiled(triton_linear._multiply_vectors, constants | {"PDL": True}, types, tile.warps)
    assert "griddepcontrol.wait" in vectors.asm["ptx"]
    before, _ = vectors.asm["ptx"].split("griddepcontrol.wait", 1)
    assert before.count("ld.global.cg.v4.b32") == tile.outputs * tile.inputs * (2 if gated else 1) // (
        32 * tile.warps * (16 if fp8 else 8)
    )  # all weights of the first part are asked for, 16 bytes at a time, before the kernel waits for another
    constants = common | {"BLOCK_M": 16, "BLOCK_N": 64, "BLOCK_K": 128, "STAGES": 3, "PRECISION": "tf32", "PDL": False}
    matrix = compiled(triton_linear._multiply_matrix, constants, types, 4)
    assert matrix.metadata.shared < 227 * 1024
    assert "wgmma" in matrix.asm["ptx"]


def test_the_other_kernels_compile_for_a_hopper_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from egm.models.decode.kernels import triton_attention, triton_likeliest, triton_linear

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    floats = ("parts_ptr", "sums_ptr", "tops_ptr", "logprobs_ptr")
    types: dict[str, str] = dict.fromkeys(floats, FLOAT) | {"begin_ptr": "*i64", "cursor_ptr": "*i64"}
    types |= {"banned_ptr": "*i8", "places_ptr": "*i32", "tokens_ptr": "*i64", "length": "i32"}
    types |= dict.fromkeys(("query_eps", "key_eps", "scaling", "eps"), "fp32")
    part: dict[str, Any] = {"KEY_HEADS": 8, "GROUP": 4, "BLOCK_G": 16, "D": 128, "BLOCK": table.ATTENTION.columns}
    part |= {"STAGES": table.ATTENTION.stages, "PRECISION": "tf32"}
    for pdl in (False, True):
        for kernel, constants in (
            (triton_attention._attend_part, part | {"PARTS": 16 if pdl else 1}),
            (triton_attention._merge_parts, {"D": 128, "PARTS": 16}),
            (triton_attention._rotate_heads, {"HEADS": 32, "KEY_HEADS": 8, "D": 128, "BLOCK": 8}),
            (triton_likeliest._scan_part, {"V": 151936, "PARTS": 75, "BLOCK": 2048}),
            (triton_likeliest._join_row, {"PARTS": 75, "BLOCK": 128}),
            (triton_linear._norm_rows, {"K": HIDDEN, "BLOCK_K": 4096}),
            (triton_linear._gate_rows, {"N": GATED, "BLOCK": 1024}),
        ):
            made = compiled(kernel, constants | {"PDL": pdl}, types, 4)
            assert ("griddepcontrol" in made.asm["ptx"]) is pdl


def test_fp8_keeps_each_output_to_its_own_scale() -> None:
    weight = torch.randn(5000, 64, generator=torch.Generator().manual_seed(0))
    weight *= torch.logspace(-6, 2, 5000)[:, None]
    weight[7] = 0
    joined = quantize_fp8(weight)
    assert joined.scale is not None
    back = joined.values.float() * joined.scale[:, None]
    assert torch.equal(back[7], weight[7])
    assert ((back - weight).norm(dim=1) <= 0.035 * weight.norm(dim=1)).all()
    assert torch.allclose(back.abs().amax(dim=1), weight.abs().amax(dim=1))
    assert quantize_fp8(weight.bfloat16()).values.shape == weight.shape


@pytest.mark.parametrize("inputs", [256, 2560, 4096, 9728, 12288, 25600])
@pytest.mark.parametrize("gated", [False, True])
def test_a_program_takes_whole_rows_and_no_more_than_its_registers_hold(inputs: int, gated: bool) -> None:
    tile = table.vector_tile(1000, inputs, fp8=False, gated=gated)
    assert tile.inputs >= min(inputs, 16384)
    assert tile.inputs & (tile.inputs - 1) == tile.outputs & (tile.outputs - 1) == 0  # as Triton wants them
    assert tile.outputs * tile.inputs * (2 if gated else 1) <= 128 * 32 * tile.warps


def test_attention_is_split_until_the_gpu_is_full() -> None:
    assert [table.attention_parts(8 * rows) for rows in (1, 2, 8, 64)] == [16, 16, 4, 1]
