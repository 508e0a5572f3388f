"""Numbered rows: SynthRef scenes made on the fly, the samples of a dataset, or several of these one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from egm.datasets.dataset import SampleSource
from egm.datasets.indexed import IndexedDataset
from egm.datasets.synthetic import Style, SynthRef
from egm.errors import DataError
from egm.record_rules import refuse_number
from egm.types import Expect, Sample


@dataclass(frozen=True, slots=True)
class Blocks:
    """Parts of a file that are cheap to read only as a whole.

    Attributes:
        bounds: The first row of each part, and at the end the number of rows.
        window: How many parts may be mixed with each other.
    """

    bounds: NDArray[np.int64]
    window: int


class Rows(Protocol):
    """Numbered rows, each of one or more samples about one picture or a few."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, index: int) -> list[Sample]:
        """Samples of one row."""
        ...

    @property
    def samples_per_row(self) -> int:
        """How many samples a row holds, at most."""
        ...

    @property
    def blocks(self) -> Blocks | None:
        """The parts that rows are read in; None if any row is as cheap as the next."""
        ...


def _asked_for(samples: list[Sample], expect: Expect | None) -> list[Sample]:
    """Return samples as asked for another number of boxes; as they are without one.

    Raises:
        DataError: If the truth of one cannot answer that.
    """
    for sample in samples if expect else []:
        try:
            refuse_number(expect or sample.expect, len(sample.truths or ()))
        except DataError as error:
            raise DataError(f"sample {sample.id!r} cannot be trained on: {error}") from None
    return [replace(sample, expect=expect) for sample in samples] if expect else samples


class SynthRefRows:
    """The scenes of a training split of SynthRef, up to four samples each.

    Args:
        scenes: How many scenes.
        seed: Which draw of the split.
        rationale: Style of the rationales.
        phrases: Samples a scene, at most.
        split: Which split.
        expect: How many boxes are asked for, in place of what its samples expect.

    Raises:
        DataError: If the split has questions that this cannot be asked of.
    """

    blocks: Blocks | None = None

    def __init__(
        self,
        scenes: int,
        seed: int,
        rationale: Style = "candidates",
        phrases: int = 4,
        split: str = "train",
        expect: Expect | None = None,
    ) -> None:
        self._source = SynthRef(split, seed=seed, rationale=rationale, phrases=phrases)
        self._scenes, self.samples_per_row = scenes, phrases
        spec = self._source.spec
        if expect is not None and expect != "all" and spec.many is not None:
            raise DataError(f"synthref/{split} has questions that several objects match: they expect all, not {expect}")
        own: tuple[Expect, ...] = spec.expects if spec.many is None else (*spec.expects, "all")
        self._expect = expect
        self.expects: tuple[Expect, ...] = own if expect is None else (expect,)
        """How many boxes its samples expect, each of them."""

    def __len__(self) -> int:
        return self._scenes

    def __getitem__(self, index: int) -> list[Sample]:
        return _asked_for(self._source.samples(index), self._expect)


class DatasetRows:
    """The samples of a dataset, in its order.

    Args:
        samples: The dataset.
        samples_per_row: How many samples make a row; the last row may hold fewer.
        expect: How many boxes are asked for, in place of what its samples expect.
    """

    def __init__(self, samples: SampleSource, samples_per_row: int = 1, expect: Expect | None = None) -> None:
        self.samples, self.samples_per_row, self.expect = samples, samples_per_row, expect
        self.blocks: Blocks | None = None
        if isinstance(samples, IndexedDataset) and samples.bounds is not None:
            self.blocks = Blocks(np.unique(-(-samples.bounds // samples_per_row)), samples.window)

    def __len__(self) -> int:
        return -(-len(self.samples) // self.samples_per_row)

    def __getitem__(self, index: int) -> list[Sample]:
        first = index * self.samples_per_row
        row = [self.samples[i] for i in range(first, min(first + self.samples_per_row, len(self.samples)))]
        return _asked_for(row, self.expect)

    @property
    def expects(self) -> tuple[Expect, ...]:
        """What all its samples expect, where that has been set."""
        return () if self.expect is None else (self.expect,)


class MixedRows:
    """Rows of several sources, one source after the other; `egm.training.data.Order` mixes them by weight.

    Args:
        parts: The sources, all with the same number of samples a row.
        weights: How often each is drawn from, relative to the others.
    """

    blocks: Blocks | None = None

    def __init__(self, parts: Sequence[Rows], weights: Sequence[float]) -> None:
        self.parts, self.weights = tuple(parts), tuple(weights)
        [self.samples_per_row] = {part.samples_per_row for part in parts}
        self.begins = [0, *accumulate(len(part) for part in parts)]

    def __len__(self) -> int:
        return self.begins[-1]

    def __getitem__(self, index: int) -> list[Sample]:
        part = bisect_right(self.begins, index) - 1
        return self.parts[part][index - self.begins[part]]
