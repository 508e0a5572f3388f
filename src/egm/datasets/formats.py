"""A file by its path: which format it is shows in its keys, and what is not recognised is refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from egm.datasets import coco, jsonl, minigpt4, parquet, sft_rows, vlm_r1
from egm.datasets.rows import Dataset, ImageRoot, Malformed, Row, RowReader, collect
from egm.datasets.unc import read_unc
from egm.errors import DataError


class Format(NamedTuple):
    """A format of rows: its name, the keys that show it, and how a row is read."""

    name: str
    keys: frozenset[str]
    read: RowReader


# The first whose keys are all there counts.
_FORMATS = (
    Format("MiniGPT-4", minigpt4.KEYS, minigpt4.sample_of),
    Format("EGM SFT", sft_rows.KEYS, sft_rows.sample_of),
    Format("VLM-R1", vlm_r1.KEYS, vlm_r1.sample_of),
    Format("EGM or verl RL", parquet.RL_KEYS, parquet.rl_samples),
    Format("lmms-lab", parquet.LMMS_KEYS, parquet.lmms_samples),
    Format("jxu124", parquet.JXU124_KEYS, parquet.jxu124_samples),
    Format("Qwen, InternVL or EGM rows", jsonl.KEYS, jsonl.sample_of),
)
KNOWN = (
    "; ".join(f"{item.name} ({', '.join(sorted(item.keys))})" for item in _FORMATS)
    + "; COCOA, COCO-Amodal, TAO-Amodal or COCO JSON (images, annotations); UNC (refs(*).p and instances.json)"
)


def open_files(
    paths: Sequence[Path],
    *,
    name: str,
    images: ImageRoot,
    by: str | None = None,
    split: str | None = None,
    malformed: list[Malformed] | None = None,
) -> Dataset:
    """Open a dataset that lies at known paths.

    Args:
        paths: A file, a UNC folder, or the parquet files of one split in order.
        name: Name of the dataset.
        images: Where images are.
        by: Who split it, for UNC.
        split: The split to take, for UNC.
        malformed: Gets the rows that are wrong, which are left out then; without it, the first of them is an error.

    Raises:
        DataError: If a file is missing, not recognised or wrong.
    """
    path = paths[0]
    if path.is_dir() or path.suffix in (".p", ".zip"):
        samples = read_unc(path, name=name, images=images, by=by, split=split, malformed=malformed)
        return Dataset(name, samples, root=images.root, kind="UNC")
    if path.suffix == ".parquet":
        return _open_parquet(paths, name, images, malformed)
    if path.suffix == ".jsonl":
        return _open_rows(jsonl.read_lines(path), path, name, images, malformed)
    if path.suffix == ".json":
        return _open_json(path, name, images, malformed)
    raise DataError(f"{path} is no dataset: .json, .jsonl, .parquet, .zip, refs(*).p and UNC folders are known")


def _open_json(path: Path, name: str, images: ImageRoot, malformed: list[Malformed] | None) -> Dataset:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"no dataset at {path}: check the path") from None
    except OSError as error:
        raise DataError(f"dataset {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if isinstance(content, dict):
        if content.keys() >= coco.KEYS:
            samples = coco.read_coco(content, name=name, file=path, images=images, malformed=malformed)
            return Dataset(name, samples, root=images.root, kind="COCO")
        raise DataError(f"{path} holds one object with {_keys(content)}, which is no known format: {KNOWN}")
    if not isinstance(content, list):
        raise DataError(f"{path} must hold a list of rows or a COCO object, not {type(content).__name__}")
    rows = (row if isinstance(row, dict) else DataError("is not an object") for row in content)
    named = ((f"row {number}", row) for number, row in enumerate(rows, 1))
    return _open_rows(named, path, name, images, malformed)


def _open_rows(
    rows: Iterable[tuple[str, Row | DataError]],
    path: Path,
    name: str,
    images: ImageRoot,
    malformed: list[Malformed] | None,
) -> Dataset:
    rest, head = iter(rows), list[tuple[str, Row | DataError]]()
    known = None
    # The first row tells the format; where malformed ones are passed over, the first that is of a known one.
    while known is None and (item := next(rest, None)) is not None:
        head.append(item)
        known = None if isinstance(item[1], DataError) else _format_of(item[1].keys())
        if malformed is None:
            break
    if not head:
        raise DataError(f"dataset {path} holds no rows")
    if known is None:
        whole = next((row for _, row in head if not isinstance(row, DataError)), None)
        # Where no row can be read at all, it does not matter which reader says so.
        known = _FORMATS[-1] if whole is None else recognise(whole.keys(), path)
    samples = collect(itertools.chain(head, rest), known.read, name=name, file=path, images=images, malformed=malformed)
    return Dataset(name, samples, root=images.root, kind=known.name)


def _open_parquet(paths: Sequence[Path], name: str, images: ImageRoot, malformed: list[Malformed] | None) -> Dataset:
    files = parquet.ParquetFiles(paths)
    known = recognise(files.columns, paths[0])
    samples = collect(files.rows(), known.read, name=name, file=paths[0], images=images, malformed=malformed)
    if files.picture_column is not None:
        return parquet.EmbeddedDataset(name, samples, files, kind=known.name)
    return Dataset(name, parquet.drop_picture_rows(samples), root=images.root, kind=known.name)


def recognise(keys: Iterable[str], path: Path) -> Format:
    """Tell the format of a file from the keys of its rows.

    Raises:
        DataError: If it is none of the known ones.
    """
    present = frozenset(keys)
    known = _format_of(present)
    if known is None:
        raise DataError(f"{path} has rows with {_keys(present)}, which is no known format: {KNOWN}")
    return known


def _format_of(keys: Iterable[str]) -> Format | None:
    present = frozenset(keys)
    return next((known for known in _FORMATS if known.keys <= present), None)


def _keys(keys: Iterable[str]) -> str:
    names = sorted(map(str, keys))
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") or "no keys"
