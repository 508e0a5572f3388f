"""Datasets that are named on the command line, opened as splits to be asked about."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from egm.cli import options
from egm.datasets.benchmarks import refuse_parts
from egm.errors import DataError

if TYPE_CHECKING:
    from egm.datasets.dataset import Dataset
    from egm.types import Sample


def open_splits(
    datasets: Sequence[str],
    *,
    images: Path | None,
    data: Path | None,
    allow_partial: bool,
    scenes: int | None,
    limit: int | None,
) -> dict[str, Iterable[Sample]]:
    """Open datasets by their names.

    Args:
        datasets: Splits, such as refcoco/val, or files.
        images: Folder of the pictures.
        data: Folder of the annotations.
        allow_partial: Whether splits of another size are taken.
        scenes: Only the first scenes of SynthRef.
        limit: Only the first samples of each.

    Raises:
        DataError: If one cannot be read, is given twice, or has no end.
    """
    refuse_parts(datasets)
    splits: dict[str, Iterable[Sample]] = {}
    for name in datasets:
        split, samples = _open(name, images=images, data=data, allow_partial=allow_partial, scenes=scenes, limit=limit)
        if split in splits:
            raise DataError(f"{name!r} is called {split!r}, as another dataset is: name each once, or rename the file")
        splits[split] = samples
    # Scenes are drawn last, when nothing else is wrong.
    return {split: list(each) if isinstance(each, Iterator) else each for split, each in splits.items()}


def _open(
    name: str, *, images: Path | None, data: Path | None, allow_partial: bool, scenes: int | None, limit: int | None
) -> tuple[str, Iterable[Sample]]:
    if name.startswith("synthref/") and not Path(name).exists():
        from egm.datasets.synthetic import SynthRef

        source = SynthRef(name.partition("/")[2], scenes=scenes)
        if source.scenes is None and limit is None:
            raise DataError(f"{name} has no end: say how much of it, such as --scenes 100")
        return name, _packed(islice(source, limit))
    if scenes is not None:
        raise DataError(f"--scenes is for SynthRef, not for {name!r}: leave it out")
    from egm.datasets.registry import open_dataset

    options.refuse_no_folder(images)
    dataset = open_dataset(name, images=images, data=data, allow_partial=allow_partial)
    dataset = dataset if limit is None else dataset.first(limit)
    check_pictures(dataset)
    return dataset.name, dataset


def check_pictures(dataset: Dataset) -> None:
    """Refuse a dataset of whose pictures none is there."""
    from egm.datasets.check import is_file

    if dataset.names_files:
        names = dict.fromkeys(str(sample.image) for sample in dataset.annotations())
        if not any(is_file(Path(name)) for name in names):
            raise DataError(
                f"none of the pictures of {dataset.name} is there, such as {str(Path(next(iter(names))))!r}: give the "
                "folder that they lie in with --images"
            )


def _packed(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples with their pictures as PNG: all of SynthRef's in pixels would take most of a gigabyte."""
    from PIL.Image import Image

    last: tuple[Image, bytes] | None = None
    for sample in samples:
        assert isinstance(sample.image, Image)
        if last is None or last[0] is not sample.image:
            stream = io.BytesIO()
            sample.image.save(stream, "PNG", compress_level=1)
            last = sample.image, stream.getvalue()
        yield replace(sample, image=last[1])
