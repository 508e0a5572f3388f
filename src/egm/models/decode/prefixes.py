"""What was read of a prompt up to the end of its picture, kept for further questions about that picture.

Pictures are known by their bytes. A few of them tell whether one may have come before, and only then, or when it is
kept, all of them are digested: a new picture costs next to nothing.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch

Key: TypeAlias = tuple[tuple[Any, ...], tuple[int, ...]]


class PictureSource:
    """A picture, for telling whether another one is the same.

    Args:
        image: An upright RGB picture.
    """

    def __init__(self, image: Any) -> None:
        self._image = image

    @cached_property
    def sample(self) -> tuple[Any, ...]:
        """Its size and three of its rows."""
        width, height = self._image.size
        rows = [height // 4, height // 2, 3 * height // 4]
        return self._image.size, *(self._image.crop((0, row, width, row + 1)).tobytes() for row in rows)

    @cached_property
    def digest(self) -> bytes:
        """A digest of all its pixels."""
        return hashlib.sha256(np.ascontiguousarray(self._image).data).digest()


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of a prompt's tokens up to the end of its picture.

    Attributes:
        keys: Of each layer, shape (key heads, T, head width), padded on the right.
        values: Likewise.
        length: How many tokens they are of.
        said: Tokens of the last answer that was written alone about the picture, for drafts of the next; changed there.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    length: int
    said: list[int] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))


class PrefixCache:
    """Prefixes by their picture and tokens; the one used least lately makes room.

    Args:
        most: Bytes that all of them may take.

    Attributes:
        most: As given.
        hits: How often one was found.
        misses: How often none was.
        held: Bytes that they take.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: OrderedDict[Key, tuple[bytes, Prefix]] = OrderedDict()
        self._weights: Any = None
        self.hits = self.misses = self.held = 0

    def __len__(self) -> int:
        return len(self._kept)

    def see_weights(self, weights: Any) -> None:
        """Let go of everything if the weights are no longer those that it was read with."""
        if weights != self._weights:
            self.clear()
        self._weights = weights

    def find(self, source: PictureSource, ids: tuple[int, ...]) -> Prefix | None:
        """Return what is kept of a picture behind tokens, or None."""
        key = source.sample, ids
        found = self._kept.get(key)
        if found is None or found[0] != source.digest:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return found[1]

    def keep(self, source: PictureSource, ids: tuple[int, ...], prefix: Prefix) -> None:
        """Keep a prefix, if there is room for it at all."""
        size = prefix.nbytes
        if size > self.most:
            return
        self._forget((source.sample, ids))
        while self.held + size > self.most:
            self._forget(next(iter(self._kept)))
        self._kept[source.sample, ids] = source.digest, prefix
        self.held += size

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()
        self.held = 0

    def _forget(self, key: Key) -> None:
        if (gone := self._kept.pop(key, None)) is not None:
            self.held -= gone[1].nbytes
