"""What the parts of `decode_floor.py` share: shapes, random weights, and times on the GPU."""

from __future__ import annotations

import json
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from egm.models.decode.kernels import configurations as table
from egm.models.decode.kernels.operations import JoinedWeight, NewTokens, RMSNorm, quantize_fp8
from egm.models.presets import get_preset

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PROMPT, TOKENS = 335, 100
ROTATED = 400_000_000  # bytes of weights that a timing goes round, so that no cache holds them


def projections(size: str) -> dict[str, tuple[int, int, bool]]:
    """Outputs, inputs and whether it is gated, of each joined projection."""
    text = get_preset(size).text
    heads = text.head_dim * (text.heads + 2 * text.kv_heads)
    return {
        "qkv": (heads, text.hidden, False),
        "out": (text.hidden, text.heads * text.head_dim, False),
        "gate_up": (2 * text.intermediate, text.hidden, True),
        "down": (text.hidden, text.intermediate, False),
    }


def kernels(*, pdl: bool = False) -> Any:
    from egm.models.decode.kernels.triton_operations import TritonOperations

    return TritonOperations(pdl=pdl)


def weight_of(outputs: int, inputs: int, fp8: bool) -> JoinedWeight:
    values = torch.randn(outputs, inputs, device=DEVICE, dtype=torch.bfloat16).mul_(inputs**-0.5)
    return quantize_fp8(values) if fp8 else JoinedWeight(values)


def attempt(name: str, function: Callable[[], Any]) -> Any:
    """Return what a function returns; None, with the end of the traceback, if it fails."""
    try:
        return function()
    except Exception as error:  # a compiler has many ways to fail, and the next one may do
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
        print(f"FAILED {name}: {type(error).__name__}: {str(error).strip()[-300:]} ({places})", flush=True)
        return None


def timed(calls: Sequence[Callable[[], Any]], rounds: int = 7) -> float:
    """Seconds a call, of calls one after the other in a CUDA graph."""
    if DEVICE == "cpu":
        return replayed(lambda: [call() for call in calls], 1) / len(calls)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in (*calls[:2], calls[-1]):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return replayed(graph.replay, rounds) / len(calls)


def replayed(call: Callable[[], Any], rounds: int) -> float:
    """Median seconds of a call."""
    call()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        if DEVICE == "cpu":
            call()
            seconds.append(time.perf_counter() - start)
            continue
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        seconds.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(seconds)


def copy_bandwidth() -> float:
    source = torch.empty(2**32 if DEVICE == "cuda" else 2**24, dtype=torch.uint8, device=DEVICE).random_()
    target = torch.empty_like(source)
    return 2 * source.numel() / replayed(lambda: target.copy_(source), 10)


def difference(ours: torch.Tensor, truth: torch.Tensor) -> float:
    return float((ours.double() - truth.double()).norm() / truth.double().norm())


def new_tokens(size: str, rows: int, length: int) -> tuple[NewTokens, torch.Tensor, torch.Tensor]:
    """A token a row behind `PROMPT` + 50 others, and a cache."""
    text = get_preset(size).text
    options: dict[str, Any] = {"device": DEVICE, "dtype": torch.bfloat16}
    angle = torch.rand(rows, text.head_dim // 2, device=DEVICE).mul_(6).repeat(1, 2)
    norm = RMSNorm(torch.rand(text.head_dim, **options) + 0.5, 1e-6)
    qkv = torch.randn(rows, text.head_dim * (text.heads + 2 * text.kv_heads), **options)
    begin = torch.randint(0, 60, (rows,), device=DEVICE)
    cursor = torch.tensor([PROMPT + 50], device=DEVICE)
    new = NewTokens(qkv, norm, norm, angle.cos().bfloat16(), angle.sin().bfloat16(), cursor, begin)
    keys, values = (torch.randn(rows, text.kv_heads, length, text.head_dim, **options) for _ in range(2))
    return new, keys, values


def load_tiles(out: Path) -> None:
    """Use the tiles that `tune` found."""
    file = out / "tiles.json"
    if not file.exists():
        return
    found = json.loads(file.read_text())
    for outputs, inputs, fp8, tile in found["vectors"]:
        table.VECTORS[outputs, inputs, fp8] = table.VectorTile(*tile)
    for outputs, inputs, fp8, rows, tile in found["matrices"]:
        table.MATRICES[outputs, inputs, fp8, rows] = tile and table.MatrixTile(*tile)
    if found["attention"]:
        table.ATTENTION = table.AttentionTile(*found["attention"])  # type: ignore[misc]
