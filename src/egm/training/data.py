"""Rows to train on: SynthRef scenes made on the fly, or the lines of a `.jsonl` file."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from egm.datasets.jsonl import JsonlDataset
from egm.datasets.synthetic import Style, SynthRef
from egm.errors import RecipeError
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

    @property
    def samples_per_row(self) -> int:
        """How many samples a row holds, at most."""
        ...


class SynthRefRows:
    """The scenes of SynthRef's training split, up to four samples each.

    Args:
        scenes: How many scenes.
        seed: Which draw of the split.
        rationale: Style of the rationales.
    """

    samples_per_row = 4

    def __init__(self, scenes: int, seed: int, rationale: Style = "candidates") -> None:
        self._scenes, self._source = scenes, SynthRef("train", seed=seed, rationale=rationale)

    def __len__(self) -> int:
        return self._scenes

    def __getitem__(self, index: int) -> list[Sample]:
        return self._source.samples(index)


class JsonlRows:
    """The lines of a `.jsonl` file, one sample each.

    Args:
        path: The file.
        images: Folder of its images.
    """

    samples_per_row = 1

    def __init__(self, path: Path, images: Path | None) -> None:
        self._samples = JsonlDataset(path, images=images)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> list[Sample]:
        return [self._samples[index]]


def open_rows(section: DataSection, seed: int) -> Rows:
    """Open what a recipe trains on.

    Raises:
        RecipeError: If it is neither `synthref/train` nor a `.jsonl` file.
        DataError: If the file is missing or damaged.
    """
    if section.train == "synthref/train":
        return SynthRefRows(section.scenes, seed, section.rationale)
    if section.train.endswith(".jsonl"):
        return JsonlRows(Path(section.train), section.images)
    raise RecipeError(f"data.train is {section.train!r}: give synthref/train or a .jsonl file")
