"""The pictures of samples, each loaded once and held against what the samples say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from egm.datasets.check import is_outside
from egm.errors import DataError, EgmError
from egm.images import load_image, picture_key
from egm.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image


def load_pictures(samples: Sequence[Sample]) -> tuple[list[Image], list[int]]:
    """Load the pictures of samples, one that several share once.

    Returns:
        The pictures, and for each sample the number of its own among them.

    Raises:
        ImageError: If a picture cannot be read.
        DataError: If a sample says another size than its picture has, or its box lies outside of it.
    """
    numbers: dict[object, int] = {}
    images: list[Image] = []
    pictures = []
    for sample in samples:
        key = picture_key(sample.image)
        if key not in numbers:
            try:
                images.append(load_image(sample.image))
            except EgmError as error:
                raise type(error)(f"sample {sample.id}: {error}") from error
            numbers[key] = len(images) - 1
        size = images[numbers[key]].size
        if sample.size is not None and tuple(sample.size) != size:
            raise DataError(f"sample {sample.id} says its image is {sample.size}, but it is {size} pixels")
        if any(is_outside(box, size, amodal=sample.amodal) for box in sample.truths or ()):
            raise DataError(f"sample {sample.id} has its box outside its image of {size} pixels")
        pictures.append(numbers[key])
    return images, pictures
