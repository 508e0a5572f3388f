"""Line-by-line JSON: the objects of a file, and a dataset of plain rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from egm.datasets import inputs
from egm.datasets.dataset import Dataset
from egm.datasets.fields import Row
from egm.datasets.formats import plain
from egm.datasets.image_root import ImageRoot
from egm.datasets.inputs import JsonError, load_json, open_regular, refuse_halves, says_halves
from egm.datasets.read_rows import read_rows
from egm.errors import DataError


class JsonlDataset(Dataset):
    """Samples of a `.jsonl` file; every row is checked when the file is opened, images when they are used.

    Args:
        path: The file.
        images: Folder that image paths are relative to and may not leave; the file's own folder by default.

    Raises:
        DataError: If the file cannot be read or a row is wrong; the message names file and line.
    """

    def __init__(self, path: str | Path, *, images: str | Path | None = None) -> None:
        self.path = Path(path)
        self.images = Path(images) if images is not None else self.path.parent
        root = ImageRoot(self.images)
        samples = read_rows(read_lines(self.path), plain.FORMAT.read, name=self.path.stem, file=self.path, images=root)
        if not samples:
            raise DataError(f"dataset {self.path} holds no rows")
        super().__init__(self.path.stem, samples, root=self.images)


def read_lines(path: Path) -> Iterator[tuple[str, Row | DataError]]:
    """Yield the objects of a `.jsonl` file with their line numbers, and what is wrong with a line that is none.

    Empty lines are passed over.

    Raises:
        DataError: If there is no such file, or it cannot be read.
    """
    try:
        with open_regular(path) as file:
            for number, (_, line) in enumerate(inputs.bounded_lines(file, path), 1):
                if line.strip():
                    yield f"line {number}", object_of(line)
    except FileNotFoundError:
        raise DataError(f"no dataset at {path}: check the path") from None
    except OSError as error:
        raise DataError(f"dataset {path} cannot be read: {error}") from None


def object_of(line: bytes) -> Row | DataError:
    """The object of a line, or what is wrong with it."""
    try:
        row = load_json(line)
        if says_halves(line):
            refuse_halves(row)
    except JsonError as error:
        return DataError(str(error))
    return row if isinstance(row, dict) else DataError("must be an object, one a line")
