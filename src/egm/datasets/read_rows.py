"""From rows to samples: every fault names its file and row, and is an error or is kept for a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from egm.datasets.fields import Row, short
from egm.datasets.image_root import ImageRoot
from egm.datasets.inputs import JsonError, refuse_halves
from egm.errors import DataError, EgmError
from egm.types import Sample

RowReader: TypeAlias = Callable[[Row, str, ImageRoot], Iterable[Sample]]
"""Makes the samples of a row, given the id to use and where images are. It raises `EgmError` without naming the row."""


_DEEPEST = 32
_HOLDERS, _TEXTS = (list, dict), (str, Path)  # made once: a union is made anew wherever it stands


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
            found = samples_of(row, read, f"{name}/{number}", images)
            if malformed is not None:  # else `Dataset` looks at the ids
                known = _with_ids(known, found)
        except EgmError as error:
            fault = Malformed(file, where, str(error))
            if malformed is None:
                raise DataError(str(fault)) from None
            malformed.append(fault)
        else:
            samples += found
    return samples


def samples_of(row: Row, read: RowReader, name: str, images: ImageRoot) -> list[Sample]:
    """Make the samples of one row.

    Raises:
        DataError: If it is wrong; the message does not name it.
    """
    try:
        found = list(read(row, name, images))
    except (OverflowError, RecursionError) as error:  # JSON may hold integers that are no floats
        raise DataError(str(error)) from None
    for sample in found:
        _refuse_half_characters(sample)
        for key, value in sample.meta.items():
            if isinstance(value, _HOLDERS) and _nests(value) > _DEEPEST:  # it could not be written again
                raise DataError(f"{short(key)} nests more than {_DEEPEST} deep")
    return found


def _refuse_half_characters(sample: Sample) -> None:
    """Refuse what could not be written again; formats that are no JSON, and those that join files, have nobody else."""
    for text in (sample.id, sample.phrase, sample.rationale, sample.image, *sample.meta.values()):
        if type(text) is str and text.isascii():  # as nearly all are
            continue
        if isinstance(text, _TEXTS) and not (text := str(text)).isascii():
            try:
                refuse_halves(text)
            except JsonError as error:
                raise DataError(str(error)) from None


def _nests(value: object) -> int:
    """How deep lists and objects stand in one another."""
    deep, level = 0, [value]
    while level and deep <= _DEEPEST:
        deep += 1
        inner = [item for each in level for item in (each.values() if isinstance(each, dict) else each)]  # type: ignore[attr-defined]
        level = [item for item in inner if isinstance(item, list | dict)]
    return deep


def _with_ids(known: set[str], samples: list[Sample]) -> set[str]:
    ids = [sample.id for sample in samples]
    if again := known.intersection(ids):
        raise DataError(f"has the id {short(min(again))} of an earlier row: give each row its own")
    known.update(ids)
    return known
