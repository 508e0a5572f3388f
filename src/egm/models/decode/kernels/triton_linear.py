"""Projections of few rows in Triton: each weight is read once, as fast as memory gives it.

`_multiply_vectors` is for few rows: a program reads some rows of the weights whole, and multiplies without
matrix units, so that its loads are wide and many of them are in flight. The norm of the input, the gate and the
residual cost nothing there. `_multiply_matrix` is for more rows, and goes by matrix units, with the weights on the
left, where tiles are tall, and the few rows as columns.

With PDL (programmatic dependent launch) a kernel starts while the one before it ends, asks for its first weights, and
waits for the other only before it reads what that wrote.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def _streamed(at, inside, BYPASS: tl.constexpr):
    """Load weights, which nobody reads again: past the first cache, or as the first to leave it."""
    if BYPASS:
        weights = tl.load(at, mask=inside, other=0.0, cache_modifier=".cg")
    else:
        weights = tl.load(at, mask=inside, other=0.0, eviction_policy="evict_first")
    return weights


@triton.jit
def _row_sums(x_ptr, gain_ptr, low, high, k, inside, NORM: tl.constexpr, GATED: tl.constexpr):
    """Multiply tiles of weights (BLOCK_N, BLOCK_K) by a part of one row of the input."""
    plain = tl.load(x_ptr + k, mask=inside, other=0.0).to(tl.float32)
    x = plain
    if NORM:  # loaded before the first sum, behind whose barriers it would wait
        x = plain * tl.load(gain_ptr + k, mask=inside, other=0.0).to(tl.float32)
    first = tl.sum(low.to(tl.float32) * x[None, :], axis=1)
    second = tl.sum(high.to(tl.float32) * x[None, :], axis=1) if GATED else first
    square = tl.sum(plain * plain, axis=0) if NORM else 0.0
    return first, second, square


@triton.jit
def _finish(
    first, second, square, row, n, inside, scale_ptr, residual_ptr, out_ptr, eps,
    N: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr, SCALED: tl.constexpr,
    RESIDUAL: tl.constexpr,
):  # fmt: skip
    """Scale the sums of one row, and write its outputs."""
    if NORM:
        norm = tl.rsqrt(square / K + eps)
        first *= norm
        second *= norm
    if SCALED:
        first *= tl.load(scale_ptr + n, mask=inside, other=0.0)
        if GATED:
            second *= tl.load(scale_ptr + N + n, mask=inside, other=0.0)
    if GATED:
        first = first * tl.sigmoid(first) * second
    if RESIDUAL:
        first += tl.load(residual_ptr + row * N + n, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * N + n, first.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _multiply_vectors(
    x_ptr, gain_ptr, weight_ptr, scale_ptr, residual_ptr, out_ptr, eps,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr, SCALED: tl.constexpr,
    RESIDUAL: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BYPASS: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Write BLOCK_N outputs of M <= 4 rows."""
    if PDL:
        gdc_launch_dependents()
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    right = n < N
    at = weight_ptr + n.to(tl.int64)[:, None] * K
    zero = tl.zeros((BLOCK_N,), tl.float32)
    a0, b0, s0 = zero, zero, 0.0
    a1, b1, s1 = zero, zero, 0.0
    a2, b2, s2 = zero, zero, 0.0
    a3, b3, s3 = zero, zero, 0.0
    for start in tl.static_range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        inside = k < K
        both = right[:, None] & inside[None, :]
        low = _streamed(at + k[None, :], both, BYPASS)
        high = _streamed(at + N * K + k[None, :], both, BYPASS) if GATED else low
        if PDL and start == 0:
            gdc_wait()
        first, second, square = _row_sums(x_ptr, gain_ptr, low, high, k, inside, NORM, GATED)
        a0, b0, s0 = a0 + first, b0 + second, s0 + square
        if M > 1:
            first, second, square = _row_sums(x_ptr + K, gain_ptr, low, high, k, inside, NORM, GATED)
            a1, b1, s1 = a1 + first, b1 + second, s1 + square
        if M > 2:
            first, second, square = _row_sums(x_ptr + 2 * K, gain_ptr, low, high, k, inside, NORM, GATED)
            a2, b2, s2 = a2 + first, b2 + second, s2 + square
        if M > 3:
            first, second, square = _row_sums(x_ptr + 3 * K, gain_ptr, low, high, k, inside, NORM, GATED)
            a3, b3, s3 = a3 + first, b3 + second, s3 + square
    _finish(a0, b0, s0, 0, n, right, scale_ptr, residual_ptr, out_ptr, eps, N, K, NORM, GATED, SCALED, RESIDUAL)
    if M > 1:
        _finish(a1, b1, s1, 1, n, right, scale_ptr, residual_ptr, out_ptr, eps, N, K, NORM, GATED, SCALED, RESIDUAL)
    if M > 2:
        _finish(a2, b2, s2, 2, n, right, scale_ptr, residual_ptr, out_ptr, eps, N, K, NORM, GATED, SCALED, RESIDUAL)
    if M > 3:
        _finish(a3, b3, s3, 3, n, right, scale_ptr, residual_ptr, out_ptr, eps, N, K, NORM, GATED, SCALED, RESIDUAL)


@triton.jit
def _multiply_matrix(
    x_ptr, weight_ptr, scale_ptr, residual_ptr, out_ptr, rows,
    N: tl.constexpr, K: tl.constexpr, GATED: tl.constexpr, SCALED: tl.constexpr, RESIDUAL: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
    PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Write BLOCK_N outputs of BLOCK_M rows."""
    if PDL:
        gdc_launch_dependents()
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    at = weight_ptr + n.to(tl.int64)[:, None] * K
    first = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    second = first
    if PDL:
        gdc_wait()
    for start in tl.range(0, K, BLOCK_K, num_stages=STAGES):
        k = start + tl.arange(0, BLOCK_K)
        inside = (n[:, None] < N) & (k[None, :] < K)
        x = tl.load(x_ptr + m[None, :] * K + k[:, None], mask=(m[None, :] < rows) & (k[:, None] < K), other=0.0)
        low = tl.load(at + k[None, :], mask=inside, other=0.0)
        first = tl.dot(low.to(x.dtype), x, first, input_precision=PRECISION)
        if GATED:
            high = tl.load(at + N * K + k[None, :], mask=inside, other=0.0)
            second = tl.dot(high.to(x.dtype), x, second, input_precision=PRECISION)
    if SCALED:
        first *= tl.load(scale_ptr + n, mask=n < N, other=0.0)[:, None]
        if GATED:
            second *= tl.load(scale_ptr + N + n, mask=n < N, other=0.0)[:, None]
    if GATED:
        first = first * tl.sigmoid(first) * second
    to = m[None, :] * N + n[:, None]
    inside = (m[None, :] < rows) & (n[:, None] < N)
    if RESIDUAL:
        first += tl.load(residual_ptr + to, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + to, first.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _norm_rows(x_ptr, gain_ptr, out_ptr, eps, K: tl.constexpr, BLOCK_K: tl.constexpr, PDL: tl.constexpr):
    """Norm one row."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    k = tl.arange(0, BLOCK_K)
    inside = k < K
    at = tl.program_id(0) * K + k
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    x = x * tl.rsqrt(tl.sum(x * x, axis=0) / K + eps)
    x = x.to(out_ptr.dtype.element_ty).to(tl.float32) * tl.load(gain_ptr + k, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, x.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _gate_rows(x_ptr, out_ptr, N: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """Multiply BLOCK outputs of a row by their gates."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(0).to(tl.int64)
    gate = tl.load(x_ptr + row * 2 * N + n, mask=n < N, other=0.0).to(tl.float32)
    up = tl.load(x_ptr + row * 2 * N + N + n, mask=n < N, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * N + n, (gate * tl.sigmoid(gate) * up).to(out_ptr.dtype.element_ty), mask=n < N)
