"""Line-by-line JSON: the rows of Qwen's, InternVL's and EGM's evaluation files, with rationales where they have them.

A row is `{"image": ..., "sent": ..., "bbox": [x1, y1, x2, y2], "height": ..., "width": ...}`, boxes in pixels; `id`,
`amodal` and `rationale` are optional, and anything else becomes the sample's `meta`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from egm.boxes import Box
from egm.errors import BoxError, DataError
from egm.types import Sample

_KNOWN = frozenset({"id", "image", "sent", "bbox", "height", "width", "amodal", "rationale"})


class JsonlDataset:
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
        try:
            with self.path.open(encoding="utf-8") as lines:
                self._samples = [self._read(line, number) for number, line in enumerate(lines, 1) if line.strip()]
        except FileNotFoundError:
            raise DataError(f"no dataset at {self.path}: check the path") from None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"dataset {self.path} cannot be read: {error}") from None
        if not self._samples:
            raise DataError(f"dataset {self.path} holds no rows")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples in the order of the file."""
        return iter(self._samples)

    def _read(self, line: str, number: int) -> Sample:
        where = f"{self.path} line {number}"
        try:
            row = json.loads(line)
        except ValueError:
            raise DataError(f"{where} is not JSON") from None
        if not isinstance(row, dict):
            raise DataError(f"{where} must be an object with image, sent and bbox")
        missing = [key for key in ("image", "sent") if not isinstance(row.get(key), str) or not row[key].strip()]
        if missing:
            raise DataError(f"{where} has no {' and no '.join(missing)}")
        return Sample(
            id=str(row.get("id", f"{self.path.stem}/{number}")),
            image=self._image(row["image"], where),
            phrase=row["sent"],
            box=self._box(row.get("bbox"), where),
            size=self._size(row, where),
            amodal=bool(row.get("amodal", False)),
            rationale=row.get("rationale") or None,
            meta={key: value for key, value in row.items() if key not in _KNOWN},
        )

    def _image(self, name: str, where: str) -> Path:
        root = self.images.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise DataError(f"{where}: image {name!r} lies outside {self.images}; only files inside it are read")
        return path

    @staticmethod
    def _box(numbers: Any, where: str) -> Box | None:
        if numbers is None:
            return None
        try:
            return Box(*numbers)
        except (TypeError, ValueError, BoxError) as error:
            raise DataError(f"{where}: bbox {numbers!r} is not x1, y1, x2, y2 in pixels ({error})") from None

    @staticmethod
    def _size(row: dict[str, Any], where: str) -> tuple[int, int] | None:
        if "width" not in row and "height" not in row:
            return None
        width, height = row.get("width"), row.get("height")
        if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
            raise DataError(f"{where}: width {width!r} and height {height!r} are not whole numbers of pixels")
        return width, height
