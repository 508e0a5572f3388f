"""M-RoPE positions of a batch at once, on the host, where a data loader's worker can compute them.

Text advances all three positions together. An image stands at the position reached, spreads over height and width, and
advances by its longer merged side (Qwen2-VL, arXiv 2409.12191, section 2.1). Qwen3-VL writes a video as one image a
frame, with timestamps between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from egm.errors import ModelError

IntArray = NDArray[np.int64]
Grids = Sequence[tuple[int, int, int]]


def host_grids(grids: Any) -> tuple[tuple[int, int, int], ...]:
    """Return patch grids as tuples `(frames, height, width)` of ints, from a tensor, an array or nested sequences.

    A tensor on a GPU makes the host wait for it; a list does not.
    """
    rows: Iterable[Sequence[int]] = grids.tolist() if hasattr(grids, "tolist") else grids
    return tuple((int(t), int(h), int(w)) for t, h, w in rows)


def position_ids(
    input_ids: Any, grids: Any, attention_mask: Any = None, config: Any = None, *, video_grids: Any = None
) -> torch.Tensor:
    """Compute what the model's `get_rope_index` computes, for a whole batch, on the CPU.

    Pass the result to the model's forward as `position_ids`. If the padding is on the right, `attention_mask` can then
    be left out of the forward: causal attention never looks right, so real tokens come out the same, and the faster
    attention kernels take calls without a mask.

    Args:
        input_ids: Token ids, shape (B, T).
        grids: Patches of each image in the batch, in order: rows of `(frames, height, width)`, or None.
        attention_mask: 1 for tokens, 0 for padding on either side, shape (B, T); None if there is no padding.
        config: The model's configuration, for its placeholder ids and its merge size.
        video_grids: As `grids`, for videos.

    Returns:
        Integers of shape (3, B, T): time, height, width. Padding is at 0.

    Raises:
        ModelError: If the placeholders in the text are not those that the grids call for.
    """
    ids = np.asarray(input_ids, dtype=np.int64)
    types = np.where(ids == config.image_token_id, 1, np.where(ids == config.video_token_id, 2, 0))
    mask = None if attention_mask is None else np.asarray(attention_mask)
    merge = config.vision_config.spatial_merge_size
    return torch.from_numpy(rope_index(types, _tuples(grids), _tuples(video_grids), mask, merge)[0])


def _tuples(grids: Any) -> Grids:
    return () if grids is None else host_grids(grids)


def rope_index(
    types: NDArray[Any], images: Grids, videos: Grids, mask: NDArray[Any] | None, merge: int
) -> tuple[IntArray, IntArray]:
    """Compute positions from token types.

    Args:
        types: 0 for text, 1 for image, 2 for video, shape (B, T).
        images: Patch grid of each image, in order.
        videos: Patch grid of each video, in order; each frame is a run of its own.
        mask: Truthy for tokens, shape (B, T), or None for all.
        merge: Patches merged along each side.

    Returns:
        Positions, shape (3, B, T), and for each sample what its next position exceeds its length by, shape (B, 1).

    Raises:
        ModelError: If the runs of placeholders are not those that the grids call for.
    """
    # The batch without its padding as one row of N tokens, so that nothing below loops over samples. R is the runs of
    # placeholders (one an image or video frame) in all samples, and M the placeholders.
    batch, length = types.shape
    where = np.arange(batch * length) if mask is None else np.flatnonzero(np.asarray(mask, dtype=bool))  # (N,)
    sample, kind = where // length, types.reshape(-1)[where].astype(np.int64)  # (N,) each
    before = np.concatenate(([-1], kind[:-1]))
    new_sample = np.concatenate(([True], sample[1:] != sample[:-1]))[: len(where)]
    # A run begins where the kind changes, or where a sample does: without padding an image may touch the next sample's.
    starts = np.flatnonzero((kind > 0) & ((kind != before) | new_sample))  # (R,)
    grids = _in_order(kind[starts], images, videos)  # (R, 3)
    frames, rows, columns = grids[:, 0], grids[:, 1] // merge, grids[:, 2] // merge
    lengths = frames * rows * columns
    visual = np.flatnonzero(kind > 0)  # (M,)
    _check(visual, starts, lengths)

    # What each token adds to the position of the next: text 1; an image its longer side, all of it at its last token.
    step = (kind == 0).astype(np.int64)
    step[starts + lengths - 1] = np.maximum(rows, columns)
    reached = np.cumsum(step) - step  # exclusive: (N,), the position at which each token, or its image, begins
    # Each sample counts from 0: what had been reached at its first token is taken off all of its tokens.
    first = np.flatnonzero(new_sample)
    sizes = np.diff(np.append(first, len(where)))
    position = np.tile(reached - np.repeat(reached[first], sizes), (3, 1))  # (3, N), right already for text

    # Within an image: frame, row and column of the merged cell that each placeholder stands for, in raster order.
    within = np.arange(len(visual)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    plane, width = np.repeat(rows * columns, lengths), np.repeat(columns, lengths)
    position[0, visual] += within // plane
    position[1, visual] += within % plane // width
    position[2, visual] += within % width

    result = np.zeros((3, batch * length), dtype=np.int64)
    result[:, where] = position
    # The next position is one past the largest; generation counts on from the length of the sample, plus the delta.
    deltas = np.zeros((batch, 1), dtype=np.int64)
    if len(first):
        deltas[sample[first], 0] = np.maximum.reduceat(position.max(axis=0), first) + 1 - sizes
    return result.reshape(3, batch, length), deltas


def _in_order(kinds: IntArray, images: Grids, videos: Grids) -> IntArray:
    """Return one grid a run of placeholders, shape (runs, 3)."""
    frames = [(1, h, w) for t, h, w in videos for _ in range(t)]
    found = int((kinds == 1).sum()), int((kinds == 2).sum())
    if found != (len(images), len(frames)):
        raise ModelError(
            f"the text holds {found[0]} images and {found[1]} video frames, "
            f"but {len(images)} and {len(frames)} were given: check the prompt for stray or cut placeholders"
        )
    grids = np.zeros((len(kinds), 3), dtype=np.int64)
    for kind, rows in ((1, images), (2, frames)):
        if rows:
            grids[kinds == kind] = rows
    return grids


def _check(visual: IntArray, starts: IntArray, lengths: IntArray) -> None:
    """Refuse runs whose lengths are not those of their grids."""
    run = np.searchsorted(starts, visual, side="right") - 1  # (M,): the run that each placeholder is in
    counted = np.bincount(run, minlength=len(starts)) if len(visual) else np.zeros(0, dtype=np.int64)
    if not np.array_equal(counted, lengths):
        k = int(np.flatnonzero(counted != lengths)[0])
        raise ModelError(
            f"image or video {k} of the batch has {counted[k]} placeholders but its grid calls for {lengths[k]}: "
            "the text was cut, or belongs to another image"
        )
