"""Rows to train on: SynthRef scenes made on the fly, or the samples of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from egm.datasets import open_dataset
from egm.datasets.synthetic import Style, SynthRef
from egm.training.recipe import DataSection
from egm.types import Sample


class Rows(Protocol):
    """Numbered rows, each of one or more samples about one picture."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, index: int) -> list[Sample]:
        """Samples of one row."""
        ...

    samples_per_row: int
    """How many samples a row holds, at most."""


class SynthRefRows:
    """The scenes of SynthRef's training split, up to four samples each.

    Args:
        scenes: How many scenes.
        seed: Which draw of the split.
        rationale: Style of the rationales.
        phrases: Samples a scene, at most.
    """

    def __init__(self, scenes: int, seed: int, rationale: Style = "candidates", phrases: int = 4) -> None:
        self._source = SynthRef("train", seed=seed, rationale=rationale, phrases=phrases)
        self._scenes, self.samples_per_row = scenes, phrases

    def __len__(self) -> int:
        return self._scenes

    def __getitem__(self, index: int) -> list[Sample]:
        return self._source.samples(index)


class DatasetRows:
    """The samples of a dataset, one a row.

    Args:
        samples: The dataset.
    """

    samples_per_row = 1

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> list[Sample]:
        return [self._samples[index]]


def open_rows(section: DataSection, seed: int) -> Rows:
    """Open what a recipe trains on.

    Raises:
        DataError: If there is no such dataset, or a row of it is wrong.
    """
    if section.train == "synthref/train":
        return SynthRefRows(section.scenes, seed, section.rationale, section.phrases)
    return DatasetRows(open_dataset(section.train, images=section.images))
