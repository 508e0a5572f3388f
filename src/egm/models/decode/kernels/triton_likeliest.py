"""The likeliest token of each row and its log-probability, in Triton: of parts of the vocabulary, then of all."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def _scan_part(
    logits_ptr, banned_ptr, tops_ptr, places_ptr, sums_ptr,
    V: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Find the largest logit of one part of a row, and sum the shares relative to it."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    v = part * BLOCK + tl.arange(0, BLOCK)
    logits = tl.load(logits_ptr + row * V + v, mask=v < V, other=float("-inf")).to(tl.float32)
    logits = tl.where(tl.load(banned_ptr + v, mask=v < V, other=1) == 0, logits, float("-inf"))
    top = tl.max(logits, axis=0)
    base = tl.where(top == float("-inf"), 0.0, top)  # a part may be banned whole
    at = row * PARTS + part
    tl.store(tops_ptr + at, top)
    tl.store(places_ptr + at, tl.min(tl.where(logits == top, v, V - 1), axis=0))
    tl.store(sums_ptr + at, tl.sum(tl.exp(logits - base), axis=0))


@triton.jit
def _join_row(
    tops_ptr, places_ptr, sums_ptr, tokens_ptr, logprobs_ptr,
    PARTS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Join the parts of one row."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0)
    part = tl.arange(0, BLOCK)
    at = row * PARTS + part
    tops = tl.load(tops_ptr + at, mask=part < PARTS, other=float("-inf"))
    places = tl.load(places_ptr + at, mask=part < PARTS, other=2147483647)
    top = tl.max(tops, axis=0)
    sums = tl.load(sums_ptr + at, mask=part < PARTS, other=0.0) * tl.exp(tops - top)
    tl.store(tokens_ptr + row, tl.min(tl.where(tops == top, places, 2147483647), axis=0).to(tl.int64))
    tl.store(logprobs_ptr + row, -tl.log(tl.sum(sums, axis=0)))
