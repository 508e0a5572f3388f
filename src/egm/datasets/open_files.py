"""Files by their paths: the ending says how rows are stored, and their keys say what they mean."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from egm.collector import paused_collector
from egm.datasets import captioned, coco, grefcoco, jsonl, parquet
from egm.datasets.dataset import Dataset
from egm.datasets.fields import Row
from egm.datasets.formats import plain
from egm.datasets.formats.base import Format
from egm.datasets.formats.conversation import CODEC_KEY
from egm.datasets.formats.recognise import KNOWN, format_of, known_columns, list_keys, recognise
from egm.datasets.image_root import ImageRoot
from egm.datasets.inputs import JsonError, load_json, read_whole, refuse_halves, says_halves
from egm.datasets.read_rows import Malformed, RowReader, read_rows
from egm.datasets.unc import read_unc
from egm.errors import DataError
from egm.types import Sample


@paused_collector()
def open_files(
    paths: Sequence[Path],
    *,
    name: str,
    images: ImageRoot,
    by: str | None = None,
    split: str | None = None,
    codec: str | None = None,
    malformed: list[Malformed] | None = None,
) -> Dataset:
    """Open a dataset that lies at known paths.

    Args:
        paths: A file, a UNC folder, or the parquet files of one split in order.
        name: Name of the dataset.
        images: Where images are.
        by: Who split it, for UNC.
        split: The split to take, for UNC.
        codec: For conversations whose rows do not say it: the codec that their answers are written in.
        malformed: Gets the rows that are wrong, which are left out then; without it, the first of them is an error.

    Raises:
        DataError: If a file is missing, not recognised or wrong.
    """
    path = paths[0]
    if codec is not None and path.suffix not in (".json", ".jsonl"):
        raise DataError(f"{path} holds no conversations, which alone need to be told a codec: leave --from-codec out")
    if path.is_dir() and (named := [path / name for name in grefcoco.NAMES if (path / name).is_file()]):
        path = named[0]
    if path.name in grefcoco.NAMES:
        samples = grefcoco.read_grefcoco(path, name=name, images=images, split=split, malformed=malformed)
        return Dataset(name, samples, root=images.root, kind="gRefCOCO")
    if path.is_dir() or path.suffix in (".p", ".zip"):
        samples = read_unc(path, name=name, images=images, by=by, split=split, malformed=malformed)
        return Dataset(name, samples, root=images.root, kind="UNC")
    if path.suffix == ".parquet":
        return _open_parquet(paths, name, images, malformed)
    if path.suffix == ".jsonl":
        return _open_rows(jsonl.read_lines(path), path, name, images, malformed, codec)
    if path.suffix == ".json":
        return _open_json(path, name, images, malformed, codec)
    raise DataError(f"{path} is no dataset: .json, .jsonl, .parquet, .zip, refs(*).p and UNC folders are known")


def _row(row: object, *, may_hold_halves: bool) -> Row | DataError:
    if not isinstance(row, dict):
        return DataError("is not an object")
    try:
        if may_hold_halves:
            refuse_halves(row)
    except JsonError as error:
        return DataError(str(error))
    return row


def _open_json(
    path: Path, name: str, images: ImageRoot, malformed: list[Malformed] | None, codec: str | None
) -> Dataset:
    try:
        text = read_whole(path)
        content, may_hold_halves = load_json(text), says_halves(text)
        if may_hold_halves and isinstance(content, dict):
            refuse_halves(content)
    except FileNotFoundError:
        raise DataError(f"no dataset at {path}: check the path") from None
    except OSError as error:
        raise DataError(f"dataset {path} cannot be read: {error.strerror}") from None
    except JsonError as error:
        raise DataError(f"{path} {error}") from None
    if isinstance(content, dict):
        if captioned.is_captioned(content):
            samples = captioned.read_captioned(content, name=name, file=path, images=images, malformed=malformed)
            return Dataset(name, samples, root=images.root, kind=captioned.KIND)
        if content.keys() >= coco.KEYS:
            samples = coco.read_coco(content, name=name, file=path, images=images, malformed=malformed)
            return Dataset(name, samples, root=images.root, kind="COCO")
        if isinstance(content.get("annotations"), list):  # HC-RefLoCo's rows, beside its `metadata`
            return _open_list(content["annotations"], path, name, images, malformed, codec, halves=may_hold_halves)
        raise DataError(f"{path} holds one object with {list_keys(content)}, which is no known format: {KNOWN}")
    if not isinstance(content, list):
        raise DataError(f"{path} must hold a list of rows or a COCO object, not {type(content).__name__}")
    return _open_list(content, path, name, images, malformed, codec, halves=may_hold_halves)


def _open_list(
    content: list[object],
    path: Path,
    name: str,
    images: ImageRoot,
    malformed: list[Malformed] | None,
    codec: str | None,
    *,
    halves: bool,
) -> Dataset:
    rows = (_row(row, may_hold_halves=halves) for row in content)
    named = ((f"row {number}", row) for number, row in enumerate(rows, 1))
    return _open_rows(named, path, name, images, malformed, codec)


def _open_rows(
    rows: Iterable[tuple[str, Row | DataError]],
    path: Path,
    name: str,
    images: ImageRoot,
    malformed: list[Malformed] | None,
    codec: str | None,
) -> Dataset:
    rest = iter(rows if codec is None else _with_codec(rows, codec))
    head: list[tuple[str, Row | DataError]] = []
    known = None
    # The first row tells the format; where malformed ones are passed over, the first that is of a known one.
    while known is None and (item := next(rest, None)) is not None:
        head.append(item)
        known = None if isinstance(item[1], DataError) else format_of(item[1].keys())
        if malformed is None:
            break
    if not head:
        raise DataError(f"dataset {path} holds no rows")
    if known is None:
        whole = next((row for _, row in head if not isinstance(row, DataError)), None)
        # Where no row can be read at all, it does not matter which reader says so.
        known = plain.FORMAT if whole is None else recognise(whole.keys(), path)
    rows = itertools.chain(head, rest)
    samples = read_rows(rows, _of_one_form(known), name=name, file=path, images=images, malformed=malformed)
    return Dataset(name, samples, root=images.root, kind=known.name, scale=known.scale)


def _of_one_form(known: Format) -> RowReader:
    """Say of a row that cannot be read that it is of another form than the first, where it is."""

    def read(row: Row, name: str, images: ImageRoot) -> Iterable[Sample]:
        try:
            return known.read(row, name, images)
        except DataError as error:
            other = format_of(row.keys())
            if other is None or other is known:
                raise
            raise DataError(
                f"{error}; it is of another form than the first row ({other.name}): keep one a file"
            ) from None

    return read


def _with_codec(rows: Iterable[tuple[str, Row | DataError]], codec: str) -> Iterator[tuple[str, Row | DataError]]:
    """Say the codec of conversations in each row that does not say it itself."""
    for where, row in rows:
        if isinstance(row, DataError) or ("conversations" not in row and "messages" not in row):
            yield where, row
        else:
            yield where, {CODEC_KEY: codec, **row}


def _open_parquet(paths: Sequence[Path], name: str, images: ImageRoot, malformed: list[Malformed] | None) -> Dataset:
    files = parquet.ParquetFiles(paths, known_columns=known_columns)
    known = recognise(files.columns, paths[0])
    embedded = files.picture_column is not None
    rows, read = files.rows(), known.read
    if embedded:
        named = files.columns - {files.picture_column}
        unnamed = known.picture_keys is not None and not known.picture_keys & named
        rows, read = files.numbered_rows(digests=unnamed), parquet.keep_number(known.read)
        images = images.without_root()
    samples = read_rows(rows, read, name=name, file=paths[0], images=images, malformed=malformed)
    if embedded:
        return parquet.EmbeddedDataset(name, samples, files, kind=known.name, scale=known.scale)
    return Dataset(name, samples, root=images.root, kind=known.name, scale=known.scale)
