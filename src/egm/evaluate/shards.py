"""Shards: a run's pictures dealt out to so many runs, which may be made anywhere and are merged afterwards.

All samples of a picture belong to one shard, so that an engine that keeps prefixes still reads each picture once. What
belongs to which depends on the samples in their order and the number of shards alone, never on a machine.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from egm.errors import DataError, EgmError

_MOST: Final = 100_000


class Pictured(Protocol):
    """A sample or a record, as far as it is about a picture."""

    @property
    def image(self) -> str:
        """Name of the picture."""
        ...


P = TypeVar("P", bound=Pictured)


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several shards of a run.

    Attributes:
        number: Which, counted from 1.
        count: Of how many.

    Raises:
        EgmError: If there is no such shard.

    Example:
        >>> str(Shard.parse("2/8"))
        '2/8'
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        """Refuse a number that is none of 1 to `count`."""
        if not 1 <= self.number <= self.count <= _MOST:
            raise EgmError(
                f"there is no shard {self.number} of {self.count}: give 1/N to N/N, N being at most {_MOST:,} (--shard)"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read a shard that is written as "2/8".

        Raises:
            EgmError: If it is none.
        """
        numbers = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
        if numbers is None:
            raise EgmError(f"{text!r} is no shard: give its number and how many there are, such as 2/8 (--shard)")
        return cls(int(numbers[1]), int(numbers[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def take(self, planned: Sequence[P]) -> dict[int, P]:
        """Keep the samples of this shard, of all that the whole run plans (`egm.evaluate.plan.plan_samples`).

        Returns:
            The samples in their order, by their number among all, counted from 0.

        Raises:
            DataError: If there are fewer pictures than shards.
        """
        shards = assign_shards([item.image for item in planned], self.count)
        return {place: planned[place] for place, number in enumerate(shards) if number == self.number}


def assign_shards(pictures: Sequence[str], count: int) -> list[int]:
    """Tell which shard each sample belongs to: pictures, as they first occur, go to the shard with fewest samples.

    So no two shards differ by more samples than one picture has, and shards that are complete tell in which order the
    pictures of the whole run were (`DealtPictures`).

    Args:
        pictures: Name of each sample's picture.
        count: How many shards.

    Returns:
        For each sample the number of its shard, from 1.

    Raises:
        DataError: If there are fewer pictures than shards.

    Example:
        >>> assign_shards(["a.jpg", "a.jpg", "b.jpg", "c.jpg"], 2)
        [1, 1, 2, 2]
    """
    samples = Counter(pictures)  # in the order of first occurrence
    if len(samples) < count:
        raise DataError(
            f"{len(samples):,} pictures cannot be dealt out to {count:,} shards: give no more shards than pictures"
        )
    deal = DealtPictures(count)
    shard_of = {picture: deal.next(n) for picture, n in samples.items()}
    return [shard_of[picture] for picture in pictures]


class DealtPictures:
    """Pictures as they are dealt out, one after the other, to the shard that has fewest samples, or the first of these.

    Args:
        count: How many shards.
    """

    def __init__(self, count: int) -> None:
        self._loads = [(0, number) for number in range(1, count + 1)]

    @property
    def turn(self) -> int:
        """Number of the shard that gets the next picture."""
        return self._loads[0][1]

    def next(self, samples: int) -> int:
        """Deal out a picture with so many samples; returns the number of the shard that gets it."""
        load, number = self._loads[0]
        heapq.heapreplace(self._loads, (load + samples, number))
        return number
