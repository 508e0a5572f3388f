"""The floor of a time: what has to be read from a GPU's memory, at the bandwidth of a copy, measured on the spot."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Final

MOST_BYTES: Final = 2**32
"""Of a copy; less where less memory is free."""
_COPIES: Final = 10


def copy_bandwidth(most: int = MOST_BYTES) -> float | None:
    """Measure the bytes a second that a copy on the GPU reads and writes together.

    Args:
        most: Bytes to copy at most.

    Returns:
        The median of ten copies; None where torch or a GPU is missing, or no memory is free.
    """
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    size = min(most, torch.cuda.mem_get_info()[0] // 4)
    if size < 2**20:
        return None
    source = torch.zeros(size, dtype=torch.uint8, device="cuda")
    target, seconds = torch.empty_like(source), list[float]()
    event: Any = torch.cuda.Event
    for _ in range(_COPIES + 1):
        begin, end = event(enable_timing=True), event(enable_timing=True)
        begin.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) / 1e3)
    del source, target
    torch.cuda.empty_cache()
    return 2 * size / statistics.median(seconds[1:])  # the first one warms up


def add_floors(rows: Sequence[dict[str, Any]], bandwidth: float | None) -> None:
    """Add to what was measured the floor of an answer and how many times that an answer took.

    Args:
        rows: From `measure`. `floor_bytes`, which they have where weights lie on a GPU of this machine, becomes
            `floor_seconds` and `times_floor`, by the median; both are None without a bandwidth.
        bandwidth: Bytes a second.
    """
    for row in rows:
        if (moved := row.pop("floor_bytes", None)) is None:
            continue
        floor = None if bandwidth is None else moved / bandwidth
        latency = (row["latency"] or {}).get("p50")
        row["floor_seconds"], row["times_floor"] = floor, latency / floor if floor and latency else None
