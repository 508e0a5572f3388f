"""Where everything stands in prompts that are read together: numbers of the host, sent to the device at once.

In shapes, U is the prompts, T the length that rows are padded to on the right, where causal attention never looks, and
L the visual tokens that stand in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from egm.models.decode.prompt_batch import PromptBatch
from egm.models.fast.rope_index import position_ids

PAD_MULTIPLE: Final = 64
"""Prompts are padded to a multiple of so many tokens."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PromptLayout:
    """Prompts, each as a row.

    Attributes:
        ids: Tokens, shape (U, T).
        positions: Theirs, shape (3, U, T).
        lengths: How many tokens each has, shape (U,).
        start: The position that comes next in each, shape (U,).
        prefixes: How many tokens of each stand up to the end of its picture, shape (U,); what follows differs between
            questions about one picture.
        visual: Which tokens are visual, shape (U, T).
        pictures: Which picture each prompt shows.
        counts: Visual tokens of each picture.
    """

    ids: Ints
    positions: Ints
    lengths: Ints
    start: Ints
    prefixes: Ints
    visual: NDArray[np.bool_]
    pictures: list[int]
    counts: Ints


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Rows of tokens to be read together, all numbers in one array.

    Attributes:
        numbers: Tokens (U, T), positions (3, U, T), the place of each row's last token among all (U,), the places of
            visual tokens (L,), which visual tokens of the pictures these are (L,), and `more`.
        shape: U and T.
        visual: L.
        pictures: The pictures that are shown, in the order in which the tower is to see them.
        in_order: Whether their tokens stand as the tower leaves them.
        more: How many further numbers there are.
    """

    numbers: Ints
    shape: tuple[int, int]
    visual: int
    pictures: list[int]
    in_order: bool
    more: int

    def split(self, sent: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the parts of `numbers` on a device, in order and in their shapes."""
        rows, length = self.shape
        area = rows * length
        sizes = [area, 3 * area, rows, self.visual, self.visual, self.more]
        ids, positions, *rest = torch.split(sent, sizes)
        return ids, positions.view(3, rows, length), *rest


def lay_out(prompts: PromptBatch, pad: int, config: Any) -> PromptLayout:
    """Pad prompts on the right, and say where everything stands."""
    lengths = np.array([len(tokens) for tokens in prompts.ids])
    width = padded(int(lengths.max()))
    ids = np.full((len(lengths), width), pad, dtype=np.int64)
    for row, tokens in enumerate(prompts.ids):
        ids[row, : len(tokens)] = tokens
    seen = np.arange(width) < lengths[:, None]
    positions = position_ids(ids, [prompts.grids[picture] for picture in prompts.pictures], seen, config).numpy()
    visual = (ids == config.image_token_id) & seen
    merge = config.vision_config.spatial_merge_size**2
    counts = np.array([t * h * w // merge for t, h, w in prompts.grids])
    # Text goes on behind the largest of the three positions (M-RoPE), which an image may push ahead of the length.
    start, prefixes = positions.max(axis=(0, 2)) + 1, width - visual[:, ::-1].argmax(axis=1)
    return PromptLayout(ids, positions, lengths, start, prefixes, visual, list(prompts.pictures), counts)


def token_rows(
    layout: PromptLayout, rows: Sequence[int], spans: Sequence[tuple[int, int]], unit: int, more: Ints
) -> TokenRows:
    """Take a span of tokens of some prompts, to be read together.

    Args:
        layout: The prompts.
        rows: Which of them.
        spans: From where to where each is read.
        unit: What the rows are padded to a multiple of.
        more: Further numbers to send.
    """
    width = padded(max(end - begin for begin, end in spans), unit)
    ids = np.zeros((len(rows), width), dtype=np.int64)
    positions, visual = np.zeros((3, *ids.shape), dtype=np.int64), np.zeros(ids.shape, dtype=bool)
    for place, (row, (begin, end)) in enumerate(zip(rows, spans, strict=True)):
        ids[place, : end - begin] = layout.ids[row, begin:end]
        positions[:, place, : end - begin] = layout.positions[:, row, begin:end]
        visual[place, : end - begin] = layout.visual[row, begin:end]
    last = np.arange(len(rows)) * width + np.array([end - begin - 1 for begin, end in spans])
    where = np.flatnonzero(visual)
    shown = [layout.pictures[row] for row, own in zip(rows, visual, strict=True) if own.any()]
    pictures = list(dict.fromkeys(shown))
    counts = layout.counts[pictures]
    begins = dict(zip(pictures, np.cumsum(counts) - counts, strict=True))
    tokens = [np.arange(begins[picture], begins[picture] + layout.counts[picture]) for picture in shown]
    which = np.concatenate([np.zeros(0, dtype=np.int64), *tokens])
    parts = (ids, positions, last, where, which, more)
    numbers = np.concatenate([np.asarray(part, dtype=np.int64).ravel() for part in parts])
    return TokenRows(numbers, ids.shape, len(where), pictures, shown == pictures, len(more))


def padded(tokens: int, unit: int = PAD_MULTIPLE) -> int:
    """Return how long a row of so many tokens is padded to be."""
    return -(-tokens // unit) * unit
