"""What a batch of images asks of the vision tower, apart from weights: which table row each patch reads, and segments.

Tables depend on a grid's size alone, so they are made once a size and kept; a batch then only says which rows it reads.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

PatchGrid = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class VisionPlan:
    """The weight-free part of one forward of the vision tower over N patches.

    Attributes:
        rows: Which of the U table rows each patch reads, shape (N,).
        taps: The four corners of the learnt position grid that a table row blends, shape (U, 4).
        weights: How much of each, shape (U, 4).
        coordinates: Height and width coordinate of a table row in patches, shape (U, 2).
        cu_seqlens: Where each frame begins, and the end, shape (frames + 1,), int32.
        max_seqlen: Patches of the largest frame.
        runs: Consecutive frames of equal size, as (how many, patches of each).
    """

    rows: torch.Tensor
    taps: torch.Tensor
    weights: torch.Tensor
    coordinates: torch.Tensor
    cu_seqlens: torch.Tensor
    max_seqlen: int
    runs: tuple[tuple[int, int], ...]


@lru_cache(maxsize=16)
def plan_for(grids: tuple[PatchGrid, ...], side: int, merge: int, device: torch.device) -> VisionPlan:
    """Return the plan of a batch; the last few are kept.

    Args:
        grids: `(frames, height, width)` in patches of each image or video, in the order of the patches.
        side: Side of the learnt position grid.
        merge: Patches merged along each side.
        device: Where the tensors go.
    """
    frames = [(h, w) for t, h, w in grids for _ in range(t)]  # attention and positions know no time: a frame each
    sizes = list(dict.fromkeys(frames))
    starts = dict(zip(sizes, itertools.accumulate((h * w for h, w in sizes), initial=0), strict=False))
    lengths = [h * w for h, w in frames]
    with torch.inference_mode(mode=False):  # kept tensors may be used in training later
        tables = [_table(h, w, side, merge, device) for h, w in sizes]
        integers = torch.cat([table[0] for table in tables])
        cu_seqlens = [0, *itertools.accumulate(lengths)]
        return VisionPlan(
            rows=gather_index([starts[size] for size in frames], lengths, device),
            taps=integers[:, :4].contiguous(),
            weights=torch.cat([table[1] for table in tables]),
            coordinates=integers[:, 4:].contiguous(),
            cu_seqlens=to_device(cu_seqlens, torch.int32, device),
            max_seqlen=max(lengths),
            runs=tuple((len(list(group)), length) for length, group in itertools.groupby(lengths)),
        )


def to_device(values: Sequence[Any], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Copy numbers to a device without waiting for what is queued there."""
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)


def gather_index(starts: Sequence[int], lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return the indices of pieces laid end to end: `starts[0], starts[0] + 1, ...`, then `starts[1], ...`.

    Returns:
        Shape (sum of lengths,).
    """
    # An arange over the whole, to which each piece adds by how much it was moved: one small copy to the device, however
    # long the pieces are, and an output size that is known here, so that nothing waits.
    begin = itertools.accumulate(lengths, initial=0)
    shifts = [start - at for start, at in zip(starts, begin, strict=False)]
    table = to_device([shifts, lengths], torch.long, device)
    total = sum(lengths)
    return torch.arange(total, device=device) + torch.repeat_interleave(table[0], table[1], output_size=total)


@lru_cache(maxsize=1024)
def _table(height: int, width: int, side: int, merge: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one size's taps and coordinates, shape (h * w, 6), and weights, shape (h * w, 4), by merged block."""
    rows, columns = np.divmod(np.arange(height * width).reshape(height, width), width)
    # Patches come block by block, the merge * merge of a visual token one after the other, not in raster order.
    blocks = (height // merge, merge, width // merge, merge)
    row, column = (axis.reshape(blocks).transpose(0, 2, 1, 3).reshape(-1) for axis in (rows, columns))
    low, part = zip(*(_along(axis, size, side) for axis, size in ((row, height), (column, width))), strict=True)
    high = [np.minimum(axis + 1, side - 1) for axis in low]
    # Bilinear: the four corners (low, high) x (low, high) of the learnt grid, and the part that each has.
    taps = [a * side + b for a, b in itertools.product((low[0], high[0]), (low[1], high[1]))]
    weights = [a * b for a, b in itertools.product((1 - part[0], part[0]), (1 - part[1], part[1]))]
    with torch.inference_mode(mode=False):
        return (
            torch.from_numpy(np.stack([*taps, row, column], axis=1).astype(np.int64)).to(device, non_blocking=True),
            torch.from_numpy(np.stack(weights, axis=1).astype(np.float32)).to(device, non_blocking=True),
        )


def _along(index: np.ndarray, size: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Stretch `size` places over `side` ones, end on end; return the lower neighbour and the part past it."""
    place = index.astype(np.float32) * np.float32(side - 1) / np.float32(max(size - 1, 1))
    low = np.floor(place).astype(np.int64)
    return low, place - low.astype(np.float32)
