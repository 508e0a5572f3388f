"""Attention of one new token a row over the used part of a static cache, in Triton, split over the chip.

A program takes one row, one key head with all query heads that share it, and one part of the columns: the first part
also norms, rotates and writes the new key. Where a row begins and where the new token stands are read on the device, so
that one CUDA graph serves all lengths. Parts leave a largest score, a sum and an output, which `_merge_parts` joins.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def _scaled(x, norm, gain, dtype: tl.constexpr):
    """Norm and gain, rounded where the library rounds."""
    return ((x * norm).to(dtype).to(tl.float32) * gain).to(dtype).to(tl.float32)


@triton.jit
def _attend_part(
    qkv_ptr, query_gain_ptr, key_gain_ptr, cos_ptr, sin_ptr, begin_ptr, cursor_ptr, keys_ptr, values_ptr, out_ptr,
    parts_ptr, sums_ptr, length, query_eps, key_eps, scaling,
    KEY_HEADS: tl.constexpr, GROUP: tl.constexpr, BLOCK_G: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
    PARTS: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Attend with GROUP query heads over one part of a row's columns."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    dtype: tl.constexpr = keys_ptr.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    part = tl.program_id(2)
    d = tl.arange(0, D)
    turned = (d + D // 2) % D  # the other coordinate of each pair
    g = tl.arange(0, BLOCK_G)
    asked = (g < GROUP)[:, None]
    cos = tl.load(cos_ptr + row * D + d).to(tl.float32)
    sin = tl.load(sin_ptr + row * D + d).to(tl.float32) * tl.where(d < D // 2, -1.0, 1.0)

    at = qkv_ptr + row * ((GROUP + 2) * KEY_HEADS * D)
    query_at = at + (head * GROUP + g)[:, None] * D
    query = tl.load(query_at + d[None, :], mask=asked, other=0.0).to(tl.float32)
    other = tl.load(query_at + turned[None, :], mask=asked, other=0.0).to(tl.float32)
    norm = tl.rsqrt(tl.sum(query * query, axis=1) / D + query_eps)[:, None]
    query = _scaled(query, norm, tl.load(query_gain_ptr + d).to(tl.float32)[None, :], dtype)
    other = _scaled(other, norm, tl.load(query_gain_ptr + turned).to(tl.float32)[None, :], dtype)
    query = (query * cos[None, :] + other * sin[None, :]).to(dtype)

    cursor = tl.load(cursor_ptr)
    cache_at = (row * KEY_HEADS + head) * length * D
    top = tl.full((BLOCK_G,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_G,), tl.float32)
    output = tl.zeros((BLOCK_G, D), tl.float32)
    if part == 0:
        key_at = at + (GROUP * KEY_HEADS + head) * D
        key = tl.load(key_at + d).to(tl.float32)
        other_key = tl.load(key_at + turned).to(tl.float32)
        key_norm = tl.rsqrt(tl.sum(key * key, axis=0) / D + key_eps)
        key = _scaled(key, key_norm, tl.load(key_gain_ptr + d).to(tl.float32), dtype)
        other_key = _scaled(other_key, key_norm, tl.load(key_gain_ptr + turned).to(tl.float32), dtype)
        key = (key * cos + other_key * sin).to(dtype)
        value = tl.load(key_at + KEY_HEADS * D + d)
        tl.store(keys_ptr + cache_at + cursor * D + d, key)
        tl.store(values_ptr + cache_at + cursor * D + d, value)
        top = tl.sum(query.to(tl.float32) * key.to(tl.float32)[None, :], axis=1) * scaling
        total += 1.0
        output += value.to(tl.float32)[None, :]

    # The columns before the new token, in equal parts of whole blocks.
    begin = tl.load(begin_ptr + row)
    width = tl.cdiv(tl.cdiv(cursor - begin, PARTS), BLOCK) * BLOCK
    low = begin + part * width
    high = tl.minimum(low + width, cursor)
    for start in tl.range(low, high, BLOCK, num_stages=STAGES):
        column = start + tl.arange(0, BLOCK)
        seen = column < high
        keys = tl.load(keys_ptr + cache_at + column[None, :] * D + d[:, None], mask=seen[None, :], other=0.0)
        values = tl.load(values_ptr + cache_at + column[:, None] * D + d[None, :], mask=seen[:, None], other=0.0)
        scores = tl.dot(query, keys, input_precision=PRECISION) * scaling
        scores = tl.where(seen[None, :], scores, float("-inf"))
        above = tl.maximum(top, tl.max(scores, axis=1))
        shares = tl.exp(scores - above[:, None])
        decay = tl.exp(top - above)
        total = total * decay + tl.sum(shares, axis=1)
        output = output * decay[:, None] + tl.dot(shares.to(dtype), values, input_precision=PRECISION)
        top = above

    heads = (row * KEY_HEADS + head) * GROUP + g  # (BLOCK_G,), among all of all rows
    if PARTS == 1:
        tl.store(out_ptr + heads[:, None] * D + d[None, :], (output / total[:, None]).to(dtype), mask=asked)
    else:
        at_part = heads * PARTS + part
        tl.store(parts_ptr + at_part[:, None] * D + d[None, :], output, mask=asked)
        tl.store(sums_ptr + at_part * 2, top, mask=g < GROUP)
        tl.store(sums_ptr + at_part * 2 + 1, total, mask=g < GROUP)


@triton.jit
def _merge_parts(parts_ptr, sums_ptr, out_ptr, D: tl.constexpr, PARTS: tl.constexpr, PDL: tl.constexpr):
    """Join the parts of one query head of one row; the first part is never empty."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    head = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, D)
    part = head * PARTS + tl.arange(0, PARTS)
    top = tl.load(sums_ptr + part * 2)
    weight = tl.exp(top - tl.max(top, axis=0))
    total = tl.sum(tl.load(sums_ptr + part * 2 + 1) * weight, axis=0)
    outputs = tl.load(parts_ptr + part[:, None] * D + d[None, :])
    output = tl.sum(outputs * weight[:, None], axis=0) / total
    tl.store(out_ptr + head * D + d, output.to(out_ptr.dtype.element_ty))


@triton.jit
def _rotate_heads(
    qkv_ptr, query_gain_ptr, key_gain_ptr, cos_ptr, sin_ptr, query_ptr, key_ptr, value_ptr, query_eps, key_eps,
    HEADS: tl.constexpr, KEY_HEADS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Norm and rotate BLOCK heads of a token, queries before keys, each by its own norm; values stay as they are."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    dtype: tl.constexpr = qkv_ptr.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, D)
    turned = (d + D // 2) % D  # the other coordinate of each pair
    asked = (head < HEADS + 2 * KEY_HEADS)[:, None]
    query = (head < HEADS)[:, None]
    value = (head >= HEADS + KEY_HEADS)[:, None]
    cos = tl.load(cos_ptr + row * D + d).to(tl.float32)
    sin = tl.load(sin_ptr + row * D + d).to(tl.float32) * tl.where(d < D // 2, -1.0, 1.0)
    at = qkv_ptr + (row * (HEADS + 2 * KEY_HEADS) + head)[:, None] * D
    x = tl.load(at + d[None, :], mask=asked, other=0.0).to(tl.float32)
    other = tl.load(at + turned[None, :], mask=asked, other=0.0).to(tl.float32)
    norm = tl.rsqrt(tl.sum(x * x, axis=1)[:, None] / D + tl.where(query, query_eps, key_eps))
    gains = tl.load(query_gain_ptr + d).to(tl.float32), tl.load(key_gain_ptr + d).to(tl.float32)
    others = tl.load(query_gain_ptr + turned).to(tl.float32), tl.load(key_gain_ptr + turned).to(tl.float32)
    y = _scaled(x, norm, tl.where(query, gains[0][None, :], gains[1][None, :]), dtype)
    other = _scaled(other, norm, tl.where(query, others[0][None, :], others[1][None, :]), dtype)
    y = tl.where(value, x, y * cos[None, :] + other * sin[None, :]).to(dtype)
    tl.store(query_ptr + (row * HEADS + head)[:, None] * D + d[None, :], y, mask=query)
    key_at = (row * KEY_HEADS + head - HEADS)[:, None] * D + d[None, :]
    tl.store(key_ptr + key_at, y, mask=asked & (query == 0) & (value == 0))
    tl.store(value_ptr + key_at - KEY_HEADS * D, y, mask=asked & value)
