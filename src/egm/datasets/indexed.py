"""Large files, read a row at a time: an index is made once, and a row is parsed when it is taken.

Of a .jsonl file the index is the byte at which each row begins, of parquet where each row group does. Both are arrays
that the processes of a data loader share; nothing else of a file stays in memory.
"""

from __future__ import annotations

import dataclasses
import os
from abc import abstractmethod
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from egm.datasets import jsonl, parquet
from egm.datasets.dataset import SampleSource
from egm.datasets.fields import Row
from egm.datasets.formats.base import Format
from egm.datasets.formats.recognise import known_columns, recognise
from egm.datasets.image_root import ImageRoot
from egm.datasets.inputs import bounded_lines, open_regular
from egm.datasets.read_rows import samples_of
from egm.errors import DataError, EgmError
from egm.types import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GROUP_BYTES = 256 * 2**20
"""Row groups that one process holds together stay within this, unless a single one is larger."""

_MOST_GROUPS = 16


class IndexedDataset(SampleSource):
    """Samples of a file that are read when they are taken.

    Attributes:
        name: The file's name without its ending.
        path: The file.
        format: The format of its rows.
        kind, scale: Name of the format, and on which scale it gives boxes.
        bounds: Where the parts begin that are read as a whole, and the number of samples; None where there are none.
        window: How many of those parts a process holds at once.
        names_files: Whether `scan` names the files of pictures, rather than pictures inside the file.
    """

    bounds: NDArray[np.int64] | None = None
    window = 1

    def __init__(self, path: Path, known: Format, images: ImageRoot) -> None:
        self.name, self.path, self.format, self._images = path.stem, path, known, images
        self.kind, self.scale = known.name, known.scale

    @property
    def place(self) -> str:
        """The file."""
        return str(self.path)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._at(index % len(self))

    @abstractmethod
    def _at(self, index: int) -> Sample: ...

    def _read(self, row: Row, number: int) -> list[Sample]:
        return samples_of(row, self.format.read, f"{self.name}/{number}", self._images)


class IndexedJsonl(IndexedDataset):
    """Rows of a .jsonl file, each parsed when it is taken: 8 bytes of memory a row.

    Args:
        path: The file.
        images: Where images are.

    Raises:
        DataError: If there is no such file, or its first row is of no known format.
    """

    def __init__(self, path: Path, *, images: ImageRoot) -> None:
        import numpy as np

        first = next(jsonl.read_lines(path), None)
        if first is None:
            raise DataError(f"dataset {path} holds no rows")
        where, row = first
        if isinstance(row, DataError):
            raise DataError(f"{path} {where}: {row}")
        super().__init__(path, recognise(row.keys(), path), images)
        with open_regular(path) as file:
            begins = array("q", (begin for begin, line in bounded_lines(file, path) if line.strip()))
        self._begins = np.frombuffer(begins, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._begins)

    def _at(self, index: int) -> Sample:
        with self.path.open("rb") as file:
            file.seek(int(self._begins[index]))
            line = file.readline()
        try:
            return self._sample(line, index)
        except EgmError as error:
            raise DataError(f"{self.path} line {self._line(index)}: {error}") from None

    def _sample(self, line: bytes, index: int) -> Sample:
        row = jsonl.object_of(line)
        if isinstance(row, DataError):
            raise row
        return self._read(row, index + 1)[0]

    def _line(self, index: int) -> int:
        with self.path.open("rb") as lines:
            begin, number = int(self._begins[index]), 1
            while lines.tell() < begin:
                lines.readline()
                number += 1
        return number

    def scan(self) -> Iterator[tuple[str, Sample | EgmError]]:
        """See `IndexedDataset.scan`."""
        index = 0
        with open_regular(self.path) as file:
            for number, (_, line) in enumerate(bounded_lines(file, self.path), 1):
                if not line.strip():
                    continue
                try:
                    yield f"line {number}", self._sample(line, index)
                except EgmError as error:
                    yield f"line {number}", error
                index += 1


class IndexedParquet(IndexedDataset):
    """Rows of a parquet file, read a row group at a time: a process holds `window` groups, within `GROUP_BYTES`.

    Args:
        path: The file.
        images: Where images are, where they are not in the file.

    Raises:
        DataError: If the file cannot be read, or is of no known format.
    """

    def __init__(self, path: Path, *, images: ImageRoot) -> None:
        import numpy as np

        files = parquet.ParquetFiles([path], known_columns=known_columns)
        if not files.length:
            raise DataError(f"dataset {path} holds no rows")
        super().__init__(path, recognise(files.columns, path), images)
        self.names_files = files.picture_column is None
        self.window = max(1, min(_MOST_GROUPS, GROUP_BYTES // max(1, files.largest_group)))
        column = self.format.lists
        counts = np.ones(files.length, np.int64) if column is None else files.list_lengths(column)
        self._begins = np.concatenate([[0], np.cumsum(counts)])
        self.bounds = self._begins[files.bounds]
        self._files: tuple[int, parquet.ParquetFiles] | None = None

    def __len__(self) -> int:
        return int(self._begins[-1])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": None}

    def _at(self, index: int) -> Sample:
        number = int(self._begins.searchsorted(index, side="right")) - 1
        if self._files is None or self._files[0] != os.getpid():
            self._files = os.getpid(), parquet.ParquetFiles([self.path], keep=self.window, known_columns=known_columns)
        try:
            row, picture = self._files[1].row(number)
            sample = self._read(row, number + 1)[index - int(self._begins[number])]
        except EgmError as error:
            raise DataError(f"{self.path} row {number + 1}: {error}") from None
        return sample if picture is None else dataclasses.replace(sample, image=picture)

    def scan(self) -> Iterator[tuple[str, Sample | EgmError]]:
        """See `IndexedDataset.scan`."""
        for number, (where, row) in enumerate(
            parquet.ParquetFiles([self.path], known_columns=known_columns).rows(held=False), 1
        ):
            try:
                for sample in self._read(row, number):
                    yield where, sample
            except EgmError as error:
                yield where, error


def open_indexed(path: str | Path, *, images: str | Path | None = None) -> IndexedDataset | None:
    """Open a .jsonl or .parquet file by index, or return None where its format has to be read whole.

    Args:
        path: The file.
        images: Folder that images lie in; of a .jsonl file its own folder by default.

    Raises:
        DataError: If the file cannot be read, or is of no known format.
    """
    path, images = Path(path), None if images is None else Path(images)
    if path.suffix == ".jsonl":
        found = IndexedJsonl(path, images=ImageRoot(images or path.parent, remember=False))
        return None if found.format.lists else found
    if path.suffix == ".parquet":
        rows = IndexedParquet(path, images=ImageRoot(images, remember=False))
        return None if rows.format.nests else rows
    return None
