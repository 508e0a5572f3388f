"""Parquet: rows, and the pictures inside the files, which are read only when they are asked for."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egm.datasets.dataset import Dataset
from egm.datasets.fields import PICTURE, BoxScale, Row, name_of_picture
from egm.datasets.image_root import ImageRoot
from egm.datasets.inputs import open_regular
from egm.datasets.read_rows import RowReader
from egm.errors import DataError
from egm.extras import need
from egm.types import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_GROUP = 512 * 2**20
"""Most bytes of one column in one row group, unpacked; pictures aside, which are read a row group at a time."""
MAX_BATCH = 64 * 2**20
"""Most bytes that the values of one column may come to in rows that are unpacked together."""

MAX_HELD = 256 * 2**20
"""Most characters of rows that are held together, pictures aside: each value as often as it is meant."""

_NUMBER = "_row"  # where a sample keeps the number of its row until its dataset has it


class ParquetFiles:
    """The rows of one or more parquet files, and the pictures inside them, which are read only when asked for.

    Args:
        paths: The files, in order.
        keep: How many row groups `row` holds in memory, the last used.
        known_columns: Tells from the names of all columns which of them are read; by default all are.

    Attributes:
        columns: Names of all columns.
        picture_column: The column that holds pictures, if one does.
        length: Number of rows.

    Raises:
        DataError: If one cannot be read, or what is to be read of it is over `MAX_GROUP` a row group.
        MissingExtraError: Without pyarrow.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        keep: int = 1,
        known_columns: Callable[[frozenset[str]], frozenset[str] | None] = lambda _: None,
    ) -> None:
        need(f"reading {paths[0]}", "pyarrow")
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        self._files = []
        for path in paths:
            try:
                open_regular(path).close()
                self._files.append(pq.ParquetFile(path))
            except FileNotFoundError:
                raise DataError(f"no dataset at {path}: check the path") from None
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{path} is not a parquet file that can be read: {error}") from None
        schema = self._files[0].schema_arrow
        self.columns = frozenset(schema.names)
        for path, file in zip(paths, self._files, strict=True):
            if missing := sorted(self.columns.difference(file.schema_arrow.names)):
                raise DataError(f"{path} lacks {', '.join(missing)[:80]} that {paths[0]} has: are they of one dataset?")
        # Which column holds pictures shows in its type: a struct with `bytes`, or a list of such.
        holding = [name for name in ("image", "images") if name in schema.names and "binary" in str(schema.field(name))]
        self.picture_column = holding[0] if holding else None
        self._wanted = self.columns & (known_columns(self.columns) or self.columns)
        self._refuse_large(paths)
        # Every row group with its file and how many rows come before it.
        self._groups: list[tuple[int, Any, int]] = []
        self.length = 0
        for file in self._files:
            for group in range(file.num_row_groups):
                self._groups.append((self.length, file, group))
                self.length += file.metadata.row_group(group).num_rows
        self._cached: tuple[int, Any] | None = None
        self._keep = keep
        self._tables: dict[int, Any] = {}

    def rows(self, *, held: bool = True) -> Iterator[tuple[str, Row]]:
        """Yield the rows without their pictures.

        Args:
            held: Whether they are to be held together, and so may come to `MAX_HELD` at most.

        Raises:
            DataError: If a file is damaged, or they come to more.
        """
        wanted = sorted(self._wanted - {self.picture_column})
        number = characters = 0
        for file in self._files:
            for rows in self._batches(file, wanted, rows_at_once(file, wanted), lambda batch: batch.to_pylist()):
                for row in rows:
                    number += 1
                    characters += sum(map(_characters, row.values())) if held else 0
                    if characters > MAX_HELD:
                        raise DataError(
                            f"row {number} and those before it hold more than {MAX_HELD // 2**20} MB of text: split "
                            "the file, or leave out columns that nothing needs"
                        )
                    yield f"row {number}", row

    def _batches(
        self, file: Any, columns: list[str], size: int, take: Callable[[Any], Any] = lambda batch: batch
    ) -> Iterator[Any]:
        import pyarrow as pa

        try:
            yield from map(take, file.iter_batches(batch_size=size, columns=columns))
        except (OSError, pa.ArrowException, MemoryError) as error:
            raise DataError(f"a parquet file is damaged: {str(error)[:160]}") from None

    def _refuse_large(self, paths: Sequence[Path]) -> None:
        """Hold what the files say of their own size against the bound, before any of it is unpacked."""
        wanted = self._wanted - {self.picture_column}
        for path, file in zip(paths, self._files, strict=True):
            for name, size in _chunks(file):
                if name in wanted and size > MAX_GROUP:
                    raise DataError(
                        f"{path} holds {size / 2**20:,.0f} MB of {name!r} in one row group, over the limit of "
                        f"{MAX_GROUP // 2**20} MB: write smaller row groups"
                    )

    def numbered_rows(self, *, digests: bool = False) -> Iterator[tuple[str, Row]]:
        """Yield the rows as `keep_number` takes them.

        Args:
            digests: Whether they are told what their pictures are called by their digests (`PICTURE`), for which all
                pictures are read once.
        """
        names: Iterable[str | None] = self._digests() if digests else itertools.repeat(None, self.length)
        for number, ((where, row), name) in enumerate(zip(self.rows(), names, strict=True)):
            yield where, {**row, _NUMBER: number, **({} if name is None else {PICTURE: name})}

    def _digests(self) -> Iterator[str | None]:
        """What each picture is called by its digest; None where there is none."""
        column = self.picture_column
        assert column is not None
        number = 0
        for file in self._files:
            for values in self._batches(file, [column], rows_at_once(file, [column]), lambda batch: batch.column(0)):
                for value in values:
                    try:
                        yield _name_by_digest(self._content(value.as_py(), number))
                    except DataError:  # which whoever takes the picture is told
                        yield None
                    number += 1

    @property
    def bounds(self) -> list[int]:
        """Where each row group begins, and at the end the number of rows."""
        return [before for before, _, _ in self._groups] + [self.length]

    @property
    def largest_group(self) -> int:
        """Bytes of the largest row group, unpacked."""
        return max((file.metadata.row_group(group).total_byte_size for _, file, group in self._groups), default=0)

    def list_lengths(self, column: str) -> NDArray[np.int64]:
        """Tell how many items each row's list holds, without reading other columns.

        Raises:
            DataError: If the column holds no lists.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc  # type: ignore[import-untyped]

        parts = (batch.column(0) for file in self._files for batch in self._batches(file, [column], 4096))
        try:
            counts = [pc.fill_null(pc.list_value_length(part), 0).to_numpy(zero_copy_only=False) for part in parts]
        except (pa.ArrowException, TypeError):
            raise DataError(f"column {column} must hold lists of expressions") from None
        return np.concatenate(counts).astype(np.int64)

    def row(self, number: int) -> tuple[Row, bytes | None]:
        """Read one row, and its row group if that is not in memory.

        Returns:
            The row without its picture, as `rows` gives it, and the picture where the file holds them.

        Raises:
            DataError: If the picture is missing.
        """
        place, before = self._place(number)
        if place in self._tables:
            table = self._tables.pop(place)
        else:
            _, file, group = self._groups[place]
            while len(self._tables) >= self._keep:
                del self._tables[next(iter(self._tables))]
            table = file.read_row_group(group, columns=sorted(self._wanted))
        self._tables[place] = table  # last in the order of use
        row = {name: table.column(name)[number - before].as_py() for name in table.column_names}
        picture = None if self.picture_column is None else self._content(row.pop(self.picture_column), number)
        return row, picture

    def _place(self, row: int) -> tuple[int, int]:
        """Return the number of a row's group and the first row of it."""
        place = bisect.bisect_right(self._groups, row, key=lambda group: group[0]) - 1
        return place, self._groups[place][0]

    def picture(self, row: int) -> bytes:
        """The bytes of a row's picture.

        Raises:
            DataError: If the row has none.
        """
        place, before = self._place(row)
        _, file, group = self._groups[place]
        if self._cached is None or self._cached[0] != place:
            table = file.read_row_group(group, columns=[self.picture_column])
            self._cached = place, table.column(self.picture_column)
        return self._content(self._cached[1][row - before].as_py(), row)

    def _content(self, value: Any, row: int) -> bytes:
        try:
            value = name_of_picture(value)
        except DataError as error:
            raise DataError(f"row {row + 1} {error}") from None
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError(f"row {row + 1} has no picture in column {self.picture_column}")
        return content


def _name_by_digest(picture: bytes) -> str:
    """Call a picture by its digest, in parts that are none of COCO's numbers."""
    digest = hashlib.sha256(picture).hexdigest()
    return "-".join(("picture", *(digest[start : start + 8] for start in range(0, 32, 8))))


def _characters(value: Any) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list) else 0


def rows_at_once(file: Any, columns: Iterable[str]) -> int:
    """How many rows of a file may be unpacked together: a value that is stored once may be meant in each."""
    largest = max((size for name, size in _chunks(file) if name in columns), default=0)
    return max(1, min(4096, MAX_BATCH // max(1, largest)))


def _chunks(file: Any) -> Iterator[tuple[str, int]]:
    """The column that each chunk of a file belongs to, and its bytes, unpacked."""
    for group in range(file.num_row_groups):
        about = file.metadata.row_group(group)
        for number in range(about.num_columns):
            chunk = about.column(number)
            yield chunk.path_in_schema.partition(".")[0], chunk.total_uncompressed_size


class EmbeddedDataset(Dataset):
    """Samples whose pictures lie inside parquet files: `image` is read, as bytes, when a sample is taken.

    Args:
        name: Name of the dataset.
        samples: The samples, as a reader of `keep_number` made them.
        files: The files.
        kind: Name of the format.
        scale: On which scale that format gives boxes.
    """

    names_files = False

    def __init__(
        self, name: str, samples: Sequence[Sample], files: ParquetFiles, *, kind: str = "", scale: BoxScale = "pixels"
    ) -> None:
        self._rows, self._files = [sample.meta[_NUMBER] for sample in samples], files
        without = [
            dataclasses.replace(sample, meta={key: value for key, value in sample.meta.items() if key != _NUMBER})
            for sample in samples
        ]
        super().__init__(name, without, kind=kind, scale=scale)

    def _at(self, index: int) -> Sample:
        return dataclasses.replace(self._samples[index], image=self._files.picture(self._rows[index]))


def keep_number(read: RowReader) -> RowReader:
    """Let the samples that a format reads know the number of their row, for an `EmbeddedDataset`."""

    def numbered(row: Row, name: str, images: ImageRoot) -> list[Sample]:
        number = row.pop(_NUMBER)
        return [
            dataclasses.replace(sample, meta={**sample.meta, _NUMBER: number}) for sample in read(row, name, images)
        ]

    return numbered
