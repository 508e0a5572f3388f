"""From rows to samples: every fault names its file and row, and is an error or is kept for a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from egm.datasets.fields import Row
from egm.datasets.image_root import ImageRoot
from egm.errors import DataError, EgmError
from egm.types import Sample

RowReader: TypeAlias = Callable[[Row, str, ImageRoot], Iterable[Sample]]
"""Makes the samples of a row, given the id to use and where images are. It raises `EgmError` without naming the row."""


class Malformed(NamedTuple):
    """A row that makes no sample: the file, where in it, such as `line 3`, and what is wrong."""

    file: Path
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.file} {self.where}: {self.what}"


def read_rows(
    rows: Iterable[tuple[str, Row | DataError]],
    read: RowReader,
    *,
    name: str,
    file: Path,
    images: ImageRoot,
    malformed: list[Malformed] | None = None,
) -> list[Sample]:
    """Read all rows of a file.

    Args:
        rows: Each with what to call it, such as `line 3`; in place of a row that is none, what is wrong with it.
        read: Reader of the format.
        name: Name of the dataset; ids are `name/number`, counted from 1.
        file: The file, for messages.
        images: Where images are.
        malformed: Gets the rows that are wrong, those too that repeat the id of an earlier one; they are left out then.
            Without it, the first of them is an error.

    Raises:
        DataError: If a row is wrong; the message names file and row.
    """
    samples: list[Sample] = []
    known: set[str] = set()
    for number, (where, row) in enumerate(rows, 1):
        try:
            if isinstance(row, DataError):
                raise row
            found = list(read(row, f"{name}/{number}", images))
            if malformed is not None:  # else `Dataset` looks at the ids
                known = _with_ids(known, found)
        except (EgmError, OverflowError) as error:  # JSON may hold integers that are no floats
            fault = Malformed(file, where, str(error))
            if malformed is None:
                raise DataError(str(fault)) from None
            malformed.append(fault)
        else:
            samples += found
    return samples


def _with_ids(known: set[str], samples: list[Sample]) -> set[str]:
    ids = [sample.id for sample in samples]
    if again := known.intersection(ids):
        raise DataError(f"has the id {min(again)!r} of an earlier row: give each row its own")
    known.update(ids)
    return known
