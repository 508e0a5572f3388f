"""The order of rows: a function of the seed and the position alone, so that a run resumes where it stopped.

Nothing is drawn from a stream and nothing is kept: how many processes load, and how many times a run was interrupted,
changes no row. A source of n rows is permuted without a list of n numbers, by a Feistel network over the next power of
four that is walked until it lands within n (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from egm.datasets.synthetic.rng import Rng
from egm.errors import RecipeError
from egm.training.data.rows import Blocks, MixedRows, Rows

PERIOD = 1000
"""Weights are kept exactly over this many rows, to the nearest row."""

_WORD = 2**64 - 1
_Key: TypeAlias = tuple[int, ...]


class Order:
    """The numbers of rows in the order of training, a different one in each epoch: a sampler for a data loader.

    An epoch has as many rows as there are. Within it every source gives its share of rows by weight; one that runs out
    begins again in another order, and one that does not goes on in the next epoch. Parquet files are read a few row
    groups at a time: these are shuffled, and then the rows of a few that follow each other.

    Args:
        rows: The rows.
        seed: Another seed gives another order.

    Raises:
        RecipeError: If a weight is too small to give one row in a thousand.
    """

    def __init__(self, rows: Rows, seed: int) -> None:
        parts, weights = (rows.parts, rows.weights) if isinstance(rows, MixedRows) else ((rows,), (1.0,))
        self._begins = rows.begins if isinstance(rows, MixedRows) else [0]
        self._length = len(rows)
        self._shuffles = [
            _Shuffle(len(part), part.blocks, f"order/{seed}/{number}") for number, part in enumerate(parts)
        ]
        self._pattern = _pattern(weights, seed)
        self._epoch = 0

    def __len__(self) -> int:
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is gone through next."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield the rows of the epoch."""
        whole, rest = divmod(self._length, len(self._pattern))
        taken = [
            self._epoch * (whole * self._pattern.count(part) + self._pattern[:rest].count(part))
            for part in range(len(self._shuffles))
        ]
        for position in range(self._length):
            part = self._pattern[position % len(self._pattern)]
            yield self._begins[part] + self._shuffles[part](taken[part])
            taken[part] += 1


class _Shuffle:
    """Rows of one source, pass after pass, each pass in its own order.

    Args:
        count: Number of rows.
        blocks: Parts to be read together.
        name: What the order depends on.
    """

    def __init__(self, count: int, blocks: Blocks | None, name: str) -> None:
        self._count, self._blocks, self._name = count, blocks, name
        self._turn = -1

    def __call__(self, taken: int) -> int:
        turn, place = divmod(taken, self._count)
        if turn != self._turn:
            self._begin(turn)
        if self._blocks is None:
            return permuted(place, self._count, self._key)
        window = int(self._windows.searchsorted(place, side="right")) - 1
        begin, end = int(self._windows[window]), int(self._windows[window + 1])
        place = begin + permuted(place - begin, end - begin, _key(f"{self._name}/{turn}/{window}"))
        block = int(self._ends.searchsorted(place, side="right"))
        return int(self._last[block]) - (int(self._ends[block]) - place)

    def _begin(self, turn: int) -> None:
        self._turn, self._key = turn, _key(f"{self._name}/{turn}")
        if self._blocks is not None:
            bounds = self._blocks.bounds
            groups = [permuted(group, len(bounds) - 1, self._key) for group in range(len(bounds) - 1)]
            self._ends = np.cumsum(np.diff(bounds)[groups])  # of the groups, in the order that they come in
            self._last = bounds[1:][groups]  # and the rows there
            self._windows = np.unique([0, *self._ends[self._blocks.window - 1 :: self._blocks.window], self._ends[-1]])


def permuted(index: int, count: int, key: _Key) -> int:
    """Return the image of `index` under a permutation of `range(count)` that the key chooses."""
    half = ((count - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for word in key:
            left, right = right, left ^ (_mixed(right ^ word) & mask)
        index = left << half | right
        if index < count:
            return index


def _mixed(value: int) -> int:
    """Scatter 64 bits: the finaliser of splitmix64."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _WORD
    return value ^ value >> 31


def _key(name: str) -> _Key:
    digest = hashlib.sha256(name.encode()).digest()
    return tuple(int.from_bytes(digest[i : i + 8], "big") for i in range(0, 32, 8))


def _pattern(weights: Sequence[float], seed: int) -> list[int]:
    """Which source each of `PERIOD` rows comes from: the shares of the weights, by largest remainder, shuffled."""
    if len(weights) == 1:
        return [0]
    near = weights
    if not math.isfinite(PERIOD * sum(weights)):  # of huge ones no sum would be told from another
        near = [weight / max(weights) for weight in weights]
    shares = [weight * PERIOD / sum(near) for weight in near]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda part: counts[part] - shares[part])
    for part in by_remainder[: PERIOD - sum(counts)]:
        counts[part] += 1
    if 0 in counts:
        part = counts.index(0)
        raise RecipeError(f"data.train.{part}.weight {weights[part]:g} is less than one row in {PERIOD}: raise it")
    return Rng(f"mixture/{seed}").shuffled([part for part, count in enumerate(counts) for _ in range(count)])
