"""Sizes of pictures, for samples whose rows say none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from egm.datasets.dataset import Dataset
from egm.images import load_image
from egm.types import Sample


def with_sizes(dataset: Dataset) -> Iterator[Sample]:
    """Yield the samples without their pictures, those inside files with their size where the rows say none.

    Rows such as lmms-lab's hold the picture and not its size, which coordinates on the 0-1000 scale cannot be read
    without. Each picture is read once.

    Raises:
        ImageError: If a picture cannot be read.
    """
    known: dict[str, tuple[int, int]] = {}
    for number, sample in enumerate(dataset.annotations()):
        if sample.size is not None or dataset.names_files:
            yield sample
            continue
        name = str(sample.image)
        if name not in known:
            known[name] = load_image(dataset[number].image).size
        yield replace(sample, size=known[name])
