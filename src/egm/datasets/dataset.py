"""A dataset: samples in the order of their file, each with an id of its own."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, overload

from egm.datasets.fields import BoxScale, short
from egm.errors import DataError, EgmError
from egm.types import Sample


@dataclass(frozen=True, slots=True)
class Choice:
    """Which pictures were chosen, where not all were; as text what tables say.

    Attributes:
        pictures: How many.
        whole: Of how many.
        seed: Fixes which.

    Example:
        >>> str(Choice(500, 6549, 0))
        'the 500 pictures of seed 0, of 6,549'
    """

    pictures: int
    whole: int
    seed: int

    def __str__(self) -> str:
        pictures = "picture" if self.pictures == 1 else "pictures"
        return f"the {self.pictures:,} {pictures} of seed {self.seed}, of {self.whole:,}"


class SampleSource(Sequence[Sample]):
    """Numbered samples of a file, read beforehand or when they are taken, and what is known of that file.

    Attributes:
        name: What it is called in reports, such as `refcoco/val`.
        kind: Name of the format that it was read from.
        scale: On which scale that format gives boxes.
        names_files: Whether `scan` names the files of pictures, rather than pictures inside the file.
    """

    name: str
    kind: str = ""
    scale: BoxScale = "pixels"
    names_files: bool = True

    @property
    def place(self) -> str:
        """Where the samples are, for messages: the file, or else the name."""
        return self.name

    @abstractmethod
    def scan(self) -> Iterator[tuple[str, Sample | EgmError]]:
        """Go through all once: where each sample is, and it, without a picture inside the file, or its fault."""


class Dataset(SampleSource):
    """Samples read from a file, all checked, in the order of the file.

    Args:
        name: What it is called in reports, such as `refcoco/val`.
        samples: The samples.
        root: Folder that image paths lie in, if known.
        kind: Name of the format that they were read from.
        scale: On which scale that format gives boxes.

    Attributes:
        name: As given.
        root: The folder, resolved.
        kind, scale: As given.
        names_files: Whether `annotations` name the files of pictures.
        choice: Which pictures it is about, where it is a part of a split by a choice of these.

    Raises:
        DataError: If there are none, or two have the same id.
    """

    choice: Choice | None = None

    def __init__(
        self,
        name: str,
        samples: Sequence[Sample],
        *,
        root: Path | None = None,
        kind: str = "",
        scale: BoxScale = "pixels",
    ) -> None:
        self.name, self.kind, self.scale = name, kind, scale
        self.root = None if root is None else root.resolve()
        self._samples = samples
        if not samples:
            raise DataError(f"dataset {name} holds no rows that can be read")
        seen: set[str] = set()
        for sample in samples:
            if sample.id in seen:
                raise DataError(f"dataset {name} has the id {short(sample.id)} twice: give each row its own")
            seen.add(sample.id)

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._at(index)

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples in the order of the file."""
        return (self._at(index) for index in range(len(self)))

    def _at(self, index: int) -> Sample:
        return self._samples[index]

    def _add_meta(self, key: str, value: Any) -> None:
        """Give every sample that lacks it an entry of `meta`.

        Only for samples that were just read and that nobody else holds: copies of all would slow down
        opening a split.
        """
        for sample in self._samples:
            assert isinstance(sample.meta, dict)
            sample.meta.setdefault(key, value)

    def first(self, count: int) -> Self:
        """The dataset of its first samples, under the same name."""
        part = copy.copy(self)
        part._samples = self._samples[:count]
        return part

    def scan(self) -> Iterator[tuple[str, Sample | EgmError]]:
        """Go through the annotations; see `SampleSource.scan`."""
        return ((f"sample {sample.id}", sample) for sample in self.annotations())

    def annotations(self) -> Sequence[Sample]:
        """The samples without their pictures where those lie inside the file; cheap to go through."""
        return self._samples


class PartOfDataset(Dataset):
    """Some samples of a dataset, under its name.

    Args:
        whole: The dataset.
        numbers: Which of its samples.
        choice: Which pictures these are about.
    """

    def __init__(self, whole: Dataset, numbers: Sequence[int], choice: Choice) -> None:
        self._whole, self._numbers, self.choice = whole, numbers, choice
        self.names_files = whole.names_files
        samples = whole.annotations()
        super().__init__(
            whole.name, [samples[number] for number in numbers], root=whole.root, kind=whole.kind, scale=whole.scale
        )

    def _at(self, index: int) -> Sample:
        return self._whole[self._numbers[index]]
