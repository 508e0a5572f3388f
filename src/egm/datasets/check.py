"""What is wrong with a dataset: rows, pictures, sizes, boxes, repeats, and leaks into the evaluation splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from egm.boxes import Box
from egm.datasets.coco_names import coco_number
from egm.datasets.dataset import Dataset
from egm.datasets.read_rows import Malformed
from egm.errors import DataError, ImageError
from egm.images import load_image
from egm.progress import track
from egm.record_rules import refuse_number
from egm.types import Sample

KINDS = (
    "malformed",
    "missing image",
    "unreadable image",
    "wrong size",
    "wrong expect",
    "box outside",
    "duplicate",
    "leak",
)
"""What can be found, in the order of reports."""

# Corners are sums of rounded numbers, so 468.3 + 171.7 may pass the edge by a rounding error.
_SLACK = 0.01


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with a sample.

    Attributes:
        kind: One of `KINDS`.
        sample: Id of the sample; of a picture that several share, the first; of a malformed row, file and place.
        detail: What it is, in a few words.
    """

    kind: str
    sample: str
    detail: str


def check_dataset(
    dataset: Dataset,
    *,
    malformed: Sequence[Malformed] = (),
    images: bool = True,
    held_out: Mapping[str, list[str]] | None = None,
    repeats: bool = True,
) -> list[Finding]:
    """Look for problems in a dataset.

    Args:
        dataset: The samples.
        malformed: The rows that are none, from `open_dataset`.
        images: Open every picture once, to see whether it is there, is whole, and has the size that its rows say.
        held_out: Image names that training must not see, each with the splits it is in. A picture leaks if its name
            is one of them, or holds the same twelve-digit COCO number, as mirrored copies do.
        repeats: Look for samples that repeat another one: same image, same box, same words. The published splits hold
            such rows, and stay as published.

    Returns:
        The findings, ordered by `KINDS` and then as in the dataset.
    """
    samples = dataset.annotations()
    found = [*malformed_rows(malformed), *_wrongly_expected(samples), *_outside(samples)]
    if repeats:
        found += _duplicates(samples)
    if held_out:
        found += _leaks(samples, held_out)
    if images:
        found += _pictures(dataset)
    return sorted(found, key=lambda finding: KINDS.index(finding.kind))


def malformed_rows(rows: Iterable[Malformed]) -> list[Finding]:
    """Malformed rows as findings."""
    return [Finding("malformed", f"{row.file.name} {row.where}", row.what) for row in rows]


def is_file(source: object) -> bool:
    """Tell whether the picture of a sample is a file that is there."""
    try:
        return isinstance(source, str | Path) and Path(source).is_file()
    except (OSError, ValueError):  # a name too long
        return False


def _wrongly_expected(samples: Iterable[Sample]) -> Iterable[Finding]:
    """Find samples whose own truth cannot answer them; where none is known there is nothing to say."""
    for sample in samples:
        try:
            if sample.truths is not None:
                refuse_number(sample.expect, len(sample.truths))
        except DataError as error:
            yield Finding("wrong expect", sample.id, str(error))


def _outside(samples: Iterable[Sample]) -> Iterable[Finding]:
    for sample in samples:
        size = sample.size
        for box in sample.truths or ():
            if size is not None and is_outside(box, size, amodal=sample.amodal):
                corners = ", ".join(f"{value:g}" for value in box)
                yield Finding("box outside", sample.id, f"{corners} in {size[0]} x {size[1]}")


def is_outside(box: Box, size: tuple[int, int], *, amodal: bool = False) -> bool:
    """Tell whether a box is not one of an image.

    Args:
        box: The box.
        size: Width and height of the image in pixels.
        amodal: Whether it is that of a whole object, which may leave the image but not lie beside it.
    """
    if amodal:
        return box.x2 <= 0 or box.y2 <= 0 or box.x1 >= size[0] or box.y1 >= size[1]
    return box.x1 < -_SLACK or box.y1 < -_SLACK or box.x2 > size[0] + _SLACK or box.y2 > size[1] + _SLACK


def _duplicates(samples: Iterable[Sample]) -> Iterable[Finding]:
    first: dict[object, str] = {}
    for sample in samples:
        key = (
            str(sample.image),
            " ".join(sample.phrase.casefold().split()),
            sample.truths,
            sample.amodal,
            sample.expect,
        )
        if first.setdefault(key, sample.id) != sample.id:
            yield Finding("duplicate", sample.id, f"same image, words and box as {first[key]}")


def _leaks(samples: Iterable[Sample], held_out: Mapping[str, list[str]]) -> Iterable[Finding]:
    known = {leak_key(name): splits for name, splits in held_out.items()}
    seen: set[str] = set()
    for sample in samples:
        name = str(sample.image)
        splits = known.get(leak_key(name))
        if splits and name not in seen:
            seen.add(name)
            yield Finding("leak", sample.id, f"{PurePath(name).name} is in {', '.join(splits)}")


def leak_key(name: str) -> str:
    """What two files of one picture share: the COCO number if the name holds one, else the file's name."""
    return coco_number(name) or PurePath(name).name


def _pictures(dataset: Dataset) -> Iterable[Finding]:
    places: dict[str, list[int]] = {}
    samples = dataset.annotations()
    for index, sample in enumerate(samples):
        places.setdefault(str(sample.image), []).append(index)
    for sample in track([samples[indices[0]] for indices in places.values()], "opening pictures"):
        indices = places[str(sample.image)]
        try:
            source = dataset[indices[0]].image
        except DataError as error:  # those of a parquet file lie in its rows
            yield Finding("missing image", sample.id, str(error))
            continue
        if isinstance(source, str | Path) and not is_file(source):
            yield Finding("missing image", sample.id, str(source))
            continue
        try:
            # Whole, not only the header: a file that was cut off while downloading has a sound one.
            size = load_image(source, root=dataset.root).size
        except ImageError as error:
            yield Finding("unreadable image", sample.id, str(error))
            continue
        for index in indices:
            said = samples[index].size
            if said is not None and said != size:
                detail = f"the row says {said[0]} x {said[1]}, the picture is {size[0]} x {size[1]}"
                yield Finding("wrong size", samples[index].id, detail)
