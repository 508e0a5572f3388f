"""What every format shares: confined image names, checked fields, and errors that name file and row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, overload

from egm.boxes import Box
from egm.errors import BoxError, DataError, EgmError
from egm.types import Sample

Row: TypeAlias = dict[str, Any]


class ImageRoot:
    """Turns the image names of a file into paths that cannot leave one folder.

    Args:
        root: The folder. Without one, relative names come back as they are and only names that would leave any folder
            are refused, so that annotations can be read where the pictures are not.
        flat: Whether only the last part of a name counts, for sets whose files prefix the same pictures differently.
        remember: Keep the path of every name, which is faster and takes memory for each; without, none is kept.
    """

    def __init__(self, root: Path | None, *, flat: bool = False, remember: bool = True) -> None:
        self._flat, self._remember = flat, remember
        self.root = None if root is None else root.resolve()
        self._given = root
        self._known: dict[str, Path] = {}

    def __call__(self, name: Any) -> Path:
        """Return the path of an image; equal names share one object.

        Raises:
            DataError: If it is not a name, or leads out of the folder once links are resolved.
        """
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise DataError(f"image must be a relative path, not {name!r}")
        path = self._known.get(name)
        if path is None:
            path = self._resolve(name.rpartition("/")[2] if self._flat else name)
            if self._remember:
                self._known[name] = path
        return path

    def _resolve(self, name: str) -> Path:
        if self.root is None:
            path = Path(name)
            if path.is_absolute() or ".." in path.parts:
                raise DataError(f"image {name!r} lies outside any folder of images: say where they are (images)")
            return path
        try:
            path = (self.root / name).resolve()
        except (OSError, RuntimeError) as error:  # links in a circle; RuntimeError before Python 3.13
            raise DataError(f"image {name!r} cannot be followed: {error}") from None
        if not path.is_relative_to(self.root):
            raise DataError(f"image {name!r} lies outside {self._given}; only files inside it are read")
        return path


class Dataset(Sequence[Sample]):
    """Samples read from a file, all checked, in the order of the file.

    Args:
        name: What it is called in reports, such as `refcoco/val`.
        samples: The samples.
        root: Folder that image paths lie in, if known.
        kind: Name of the format that they were read from.

    Attributes:
        name: As given.
        root: The folder, resolved.
        kind: As given.
        names_files: Whether `annotations` name the files of pictures.

    Raises:
        DataError: If there are none, or two have the same id.
    """

    names_files = True

    def __init__(self, name: str, samples: Sequence[Sample], *, root: Path | None = None, kind: str = "") -> None:
        self.name, self.kind = name, kind
        self.root = None if root is None else root.resolve()
        self._samples = samples
        if not samples:
            raise DataError(f"dataset {name} holds no rows")
        seen: set[str] = set()
        for sample in samples:
            if sample.id in seen:
                raise DataError(f"dataset {name} has the id {sample.id!r} twice: give each row its own")
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

    def annotations(self) -> Sequence[Sample]:
        """The samples without their pictures where those lie inside the file; cheap to go through."""
        return self._samples


RowReader: TypeAlias = Callable[[Row, str, ImageRoot], Iterable[Sample]]
"""Makes the samples of a row, given the id to use and where images are. It raises `EgmError` without naming the row."""


class Malformed(NamedTuple):
    """A row that makes no sample: the file, where in it, such as `line 3`, and what is wrong."""

    file: Path
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.file} {self.where}: {self.what}"


def collect(
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


def text(row: Mapping[str, Any], key: str) -> str:
    """A field that must hold words."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"has no {key}")
    return value


def pixels(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height of a row in whole pixels, or None if it gives neither."""
    width, height = row.get("width"), row.get("height")
    if width is None and height is None:
        return None
    if not (_whole(width) and _whole(height)):
        raise DataError(f"width {width!r} and height {height!r} are not whole numbers of pixels")
    assert width is not None
    assert height is not None
    return int(width), int(height)


def xyxy(numbers: Any, key: str = "bbox") -> Box:
    """A box given as `x1, y1, x2, y2` in pixels."""
    try:
        x1, y1, x2, y2 = _four(numbers)
        return Box(x1, y1, x2, y2)
    except (TypeError, ValueError, BoxError) as error:
        raise DataError(f"{key} {_short(numbers)} is not x1, y1, x2, y2 in pixels ({error})") from None


def xywh(numbers: Any, key: str = "bbox") -> Box:
    """A box given as COCO's `x, y, width, height` in pixels."""
    try:
        return Box.from_xywh(_four(numbers))
    except (TypeError, ValueError, BoxError) as error:
        raise DataError(f"{key} {_short(numbers)} is not x, y, width, height in pixels ({error})") from None


def scaled_1000(numbers: Any, size: tuple[int, int] | None, key: str) -> Box:
    """A box given on the 0-1000 scale, in pixels of an image of `size` (width, height)."""
    if size is None:
        raise DataError(f"{key} is on the 0-1000 scale, which needs width and height")
    try:
        return Box.from_1000(_four(numbers), size)
    except (TypeError, ValueError, BoxError) as error:
        raise DataError(f"{key} {_short(numbers)} is not x1, y1, x2, y2 on the 0-1000 scale ({error})") from None


def _four(numbers: Any) -> tuple[float, float, float, float]:
    if not isinstance(numbers, list | tuple):
        raise TypeError("not a list")
    if len(numbers) != 4:
        raise ValueError(f"{len(numbers)} numbers")
    for value in numbers:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise TypeError(f"{value!r} is not a number")
    a, b, c, d = numbers
    return a, b, c, d


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
