"""Parquet: lmms-lab's RefCOCO, jxu124's, and the files for reinforcement learning of EGM and verl.

- lmms-lab: `answer` is the list of expressions (`question` is not one), `bbox` is `x, y, width, height`, the picture is
  in the file.
- jxu124: `sentences` with `sent` or `raw` each, `bbox` is `x1, y1, x2, y2`.
- EGM and verl: `prompt`, `images`, `reward_model`, `extra_info`. `extra_info.bbox` is the box in pixels where it is
  given, as `egm data convert` does; else `reward_model.ground_truth` is on the 0-1000 scale if `data_source` is
  `grounding`, which is what the official EGM files say. Of any other `data_source` the scale is not known, and the row
  is refused.
"""

from __future__ import annotations

import bisect
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egm.datasets.minigpt4 import ref_image
from egm.datasets.rows import Dataset, ImageRoot, Row, pixels, scaled_1000, text, xywh, xyxy
from egm.datasets.wordings import phrase_of
from egm.errors import DataError
from egm.extras import need
from egm.types import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LMMS_KEYS = frozenset({"question_id", "answer", "bbox"})
JXU124_KEYS = frozenset({"ref_id", "sentences", "bbox"})
RL_KEYS = frozenset({"prompt", "reward_model", "images"})
_PICTURE = "_row"


class ParquetFiles:
    """The rows of one or more parquet files, and the pictures inside them, which are read only when asked for.

    Args:
        paths: The files, in order.
        keep: How many row groups `row` holds in memory, the last used.

    Attributes:
        columns: Names of the columns.
        picture_column: The column that holds pictures, if one does.
        length: Number of rows.

    Raises:
        DataError: If one cannot be read.
        MissingExtraError: Without pyarrow.
    """

    def __init__(self, paths: Sequence[Path], *, keep: int = 1) -> None:
        need(f"reading {paths[0]}", "pyarrow")
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        self._files = []
        for path in paths:
            try:
                self._files.append(pq.ParquetFile(path))
            except FileNotFoundError:
                raise DataError(f"no dataset at {path}: check the path") from None
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{path} is not a parquet file that can be read: {error}") from None
        schema = self._files[0].schema_arrow
        self.columns = frozenset(schema.names)
        # Which column holds pictures shows in its type: a struct with `bytes`, or a list of such.
        holding = [name for name in ("image", "images") if name in schema.names and "binary" in str(schema.field(name))]
        self.picture_column = holding[0] if holding else None
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

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Yield the rows without their pictures."""
        wanted = sorted(self.columns - {self.picture_column})
        number = 0
        for file in self._files:
            for batch in file.iter_batches(batch_size=4096, columns=wanted):
                for row in batch.to_pylist():
                    yield f"row {number + 1}", {**row, _PICTURE: number}
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

        parts = (batch.column(0) for file in self._files for batch in file.iter_batches(columns=[column]))
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
            table = file.read_row_group(group)
        self._tables[place] = table  # last in the order of use
        row = {name: table.column(name)[number - before].as_py() for name in table.column_names}
        picture = None if self.picture_column is None else self._content(row.pop(self.picture_column), number)
        return {**row, _PICTURE: number}, picture

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
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError(f"row {row + 1} has no picture in column {self.picture_column}")
        return content


class EmbeddedDataset(Dataset):
    """Samples whose pictures lie inside parquet files: `image` is read, as bytes, when a sample is taken.

    Args:
        name: Name of the dataset.
        samples: The samples; `meta` of each has the row of its picture.
        files: The files.
        kind: Name of the format.
    """

    names_files = False

    def __init__(self, name: str, samples: Sequence[Sample], files: ParquetFiles, *, kind: str = "") -> None:
        rows = [sample.meta[_PICTURE] for sample in samples]
        super().__init__(name, drop_picture_rows(samples), kind=kind)
        self._rows, self._files = rows, files

    def _at(self, index: int) -> Sample:
        return dataclasses.replace(self._samples[index], image=self._files.picture(self._rows[index]))


def lmms_samples(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row of lmms-lab: a sample for each expression."""
    ref = text(row, "file_name") if "file_name" in row else name
    phrases = row.get("answer")
    return _many(row, name, images(ref_image(ref)), phrases, xywh(row["bbox"]), {"ref": ref})


def jxu124_samples(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row of jxu124: a sample for each sentence."""
    info = row.get("raw_image_info")
    try:
        details = json.loads(info) if isinstance(info, str) else {}
        stored = details.get("file_name")
        phrases = [sentence.get("sent") or sentence.get("raw") for sentence in row["sentences"]]
    except (TypeError, AttributeError, ValueError):
        raise DataError("sentences must be a list of objects with sent, and raw_image_info JSON") from None
    file_name = stored or ref_image(text(row, "file_name"))
    meta = {"ref": row["ref_id"], **{key: row.get(key) for key in ("image_id", "category_id", "split")}}
    return _many(details | row, name, images(file_name), phrases, xyxy(row["bbox"]), meta)


def _many(row: Row, name: str, image: Path, phrases: Any, box: Any, meta: Row) -> list[Sample]:
    if not isinstance(phrases, list) or not phrases:
        raise DataError("has no expressions")
    if not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
        raise DataError("has an expression that is empty or no string")
    size = pixels(row)
    meta = {key: value for key, value in meta.items() if value is not None} | _picture_row(row)
    return [Sample(f"{name}/{n}", image, phrase, box, size, meta=meta) for n, phrase in enumerate(phrases, 1)]


def rl_samples(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row for reinforcement learning."""
    extra = row.get("extra_info") or {}
    if not isinstance(extra, dict):
        raise DataError("extra_info must be an object")
    try:
        question = next(turn["content"] for turn in row["prompt"] if turn["role"] == "user")
        truth = row["reward_model"].get("ground_truth")
        pictures = row.get("images") or [None]
    except (TypeError, KeyError, AttributeError, StopIteration):
        raise DataError("prompt must hold a turn of the user, and reward_model a ground_truth") from None
    if not isinstance(question, str) or not isinstance(pictures, list):
        raise DataError("the user's content must be a string, and images a list")
    phrase, amodal = (text(extra, "sent"), bool(extra.get("amodal"))) if "sent" in extra else phrase_of(question)
    size = pixels(extra)
    if extra.get("bbox") is not None:
        box = xyxy(extra["bbox"], "extra_info.bbox")
    elif row.get("data_source") == "grounding":
        box = scaled_1000(truth, size, "ground_truth")
    else:
        raise DataError(
            f"data_source {row.get('data_source')!r} does not say on which scale ground_truth is: "
            "give the box in pixels as extra_info.bbox"
        )
    first = pictures[0]
    if isinstance(first, dict):
        first = first.get("image") or first.get("path")
    image = images(first) if "images" in row else Path(name)  # without that column, the pictures are in the file
    own = extra.get("id")  # official files carry -1 in every row
    meta = {key: extra[key] for key in ("split", "index") if extra.get(key) is not None} | _picture_row(row)
    return [
        Sample(
            own if isinstance(own, str) and own else name,
            image,
            phrase,
            box,
            size,
            amodal,
            extra.get("rationale"),
            meta,
        )
    ]


def _picture_row(row: Row) -> Row:
    return {_PICTURE: row[_PICTURE]} if _PICTURE in row else {}


def drop_picture_rows(samples: Sequence[Sample]) -> list[Sample]:
    """The samples without the row of a picture, for files that hold paths only."""
    return [
        dataclasses.replace(s, meta={key: value for key, value in s.meta.items() if key != _PICTURE}) for s in samples
    ]
