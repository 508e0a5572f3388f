"""How kernels are cut up: chosen by shape, from what `benchmarks/decode_floor.py` measured."""

from __future__ import annotations

from typing import Final, NamedTuple

VECTOR_ROWS: Final = {False: 1, True: 4}
"""Up to so many rows are multiplied as vectors, more as a matrix; by whether the weights are fp8. In bf16 on an H200,
answers of 101 tokens took 0.59 s two at a time and 1.00 s four at a time as vectors, and 0.59 s eight as a matrix."""


class VectorTile(NamedTuple):
    """A program's share of a product with vectors: outputs, inputs at a time, warps, and whether L1 is passed by."""

    outputs: int
    inputs: int
    warps: int
    bypass: bool = True


class MatrixTile(NamedTuple):
    """A program's share of a product with a matrix: outputs, inputs at a time, stages of the pipeline, and warps."""

    outputs: int
    inputs: int
    stages: int
    warps: int


class AttentionTile(NamedTuple):
    """A program's share of attention: columns at a time, stages of the pipeline, and warps."""

    columns: int
    stages: int
    warps: int


# Qwen3-VL-8B's shapes on an NVIDIA H200, torch 2.11, Triton 3.6, 30 November 2026: `decode_floor.py --parts tune`.
VECTORS: Final[dict[tuple[int, int, bool], VectorTile]] = {
    (6144, 4096, False): VectorTile(2, 4096, 4, True),
    (4096, 4096, False): VectorTile(2, 4096, 2, True),
    (24576, 4096, False): VectorTile(1, 4096, 4, True),
    (4096, 12288, False): VectorTile(2, 4096, 4, True),
    (151936, 4096, False): VectorTile(2, 4096, 4, True),
    (6144, 4096, True): VectorTile(8, 4096, 8, False),
    (4096, 4096, True): VectorTile(4, 4096, 4, False),
    (24576, 4096, True): VectorTile(4, 2048, 4, True),
    (4096, 12288, True): VectorTile(2, 4096, 4, True),
}
"""By outputs, inputs and whether the weights are fp8; gated projections count both halves."""
MATRICES: Final[dict[tuple[int, int, bool, int], MatrixTile | None]] = {
    (6144, 4096, False, 16): MatrixTile(64, 256, 3, 4),
    (6144, 4096, False, 64): None,
    (4096, 4096, False, 16): None,
    (4096, 4096, False, 64): None,
    (24576, 4096, False, 16): MatrixTile(128, 128, 3, 8),
    (24576, 4096, False, 64): None,
    (4096, 12288, False, 16): None,
    (4096, 12288, False, 64): None,
    (151936, 4096, False, 16): MatrixTile(64, 128, 4, 4),
    (151936, 4096, False, 64): MatrixTile(128, 128, 3, 8),
    (6144, 4096, True, 16): MatrixTile(64, 128, 4, 4),
    (6144, 4096, True, 64): MatrixTile(64, 128, 4, 4),
    (4096, 4096, True, 16): MatrixTile(32, 256, 4, 4),
    (4096, 4096, True, 64): MatrixTile(64, 128, 4, 4),
    (24576, 4096, True, 16): MatrixTile(64, 128, 4, 4),
    (24576, 4096, True, 64): MatrixTile(64, 128, 4, 4),
    (4096, 12288, True, 16): MatrixTile(32, 256, 4, 4),
    (4096, 12288, True, 64): MatrixTile(64, 128, 4, 4),
}
"""Likewise, and by rows as `matrix_rows` rounds them; None is the library's product, for bf16."""
ATTENTION: Final = AttentionTile(columns=32, stages=3, warps=2)
PROGRAMS: Final = 264
"""Into so many programs attention is split where rows are few: two for each multiprocessor of a Hopper GPU."""
MOST_PARTS: Final = 16


def vector_tile(outputs: int, inputs: int, fp8: bool, gated: bool) -> VectorTile:
    """Return the tile for few rows."""
    if (chosen := VECTORS.get((outputs, inputs, fp8))) is not None:
        return chosen
    # Whole rows, so that all weights of a program are asked for before anything waits; up to 128 a thread, which are 64
    # registers in bf16. Where rows are long more threads share one, and the input is read for two rows at once.
    width = min(_power(inputs), 16384)
    warps = 4 if width <= 4096 else 8
    return VectorTile(max(1, min(4096 * warps // width // (2 if gated else 1), 16)), width, warps)


def matrix_tile(outputs: int, inputs: int, fp8: bool, rows: int) -> MatrixTile | None:
    """Return the tile for more rows; None where the library's product is as quick."""
    default = MatrixTile(64 if outputs >= 16384 else 32, 128, 4, 4) if fp8 else None
    return MATRICES.get((outputs, inputs, fp8, matrix_rows(rows)), default)


def matrix_rows(rows: int) -> int:
    """Return the columns of a tile for so many rows: 16, 32 or 64."""
    return min(max(16, _power(rows)), 64)


def attention_parts(programs: int) -> int:
    """Return into how many parts columns are split where rows and key heads make so many programs."""
    parts = 1
    while parts < MOST_PARTS and programs * parts * 2 <= PROGRAMS:
        parts *= 2
    return parts


def _power(number: int) -> int:
    """Return the next power of two."""
    return 1 << (number - 1).bit_length()
