"""Rationales of pictures that are evaluated on: trained on, they would make accuracies untrue."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from egm.datasets import open_dataset
from egm.datasets.check import leak_key
from egm.datasets.registry import evaluation_images
from egm.datasets.synthetic import SPLITS, TRAINING, VERSION
from egm.errors import DataError, EgmError
from egm.images import load_image
from egm.rationales.candidate import Candidate
from egm.rationales.filters.base import Filter, register_filter

if TYPE_CHECKING:
    from PIL.Image import Image

_FROZEN: Final = tuple(f"synthref{VERSION}/{split}/0/" for split in SPLITS if split not in TRAINING)


@register_filter
@dataclass
class EvaluationPicture(Filter):
    """Drops samples of pictures that an evaluation split holds, by name, by COCO number, and by pixels if asked to.

    SynthRef's frozen splits are told by their samples' ids. The eight splits of RefCOCO are told by the names of their
    pictures, where their annotations are found; once others than SynthRef's were checked, `unknown` says why where they
    are not.

    Attributes:
        data: Folder of RefCOCO's annotations; by default where `egm eval` looks for them. If given, they must be there.
        against: More evaluation data, as `open_dataset` takes it: names or paths.
        pixels: Whether to compare the pixels of the pictures in `against` too, so that a renamed or mirrored copy is
            found. It reads every picture of it at construction, and every picture that is checked.
        unknown: Why RefCOCO's pictures are not known, where that mattered, or None.
    """

    name: ClassVar[str] = "evaluation_picture"
    reason: ClassVar[str] = "its picture belongs to an evaluation split"
    data: str | None = None
    against: tuple[str, ...] = ()
    pixels: bool = False
    unknown: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._names: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._fault: str | None = None
        try:
            images = evaluation_images(None if self.data is None else Path(self.data))
        except DataError as error:
            if self.data is not None:
                raise
            images, self._fault = {}, str(error)
        self._names = {leak_key(name): ", ".join(splits) for name, splits in images.items()}
        for name in self.against:
            self._take(name)

    def _take(self, name: str) -> None:
        dataset = open_dataset(name)
        seen: set[str | None] = set()
        for index, sample in enumerate(dataset.annotations()):
            key = _key(sample.id, sample.image)
            if key not in seen:
                seen.add(key)
                if key is not None:
                    self._names.setdefault(key, name)
                if self.pixels:
                    picture = load_image(dataset[index].image, root=dataset.root)
                    self._digests.setdefault(_digest(picture), name)

    def check(self, candidate: Candidate) -> str | None:
        """Look the picture up; see `Filter.check`."""
        sample = candidate.sample
        if sample.id.startswith(_FROZEN):
            return f"it is in synthref/{sample.id.split('/')[1]}"
        if not sample.id.startswith("synthref"):
            self.unknown = self._fault
        key = _key(sample.id, sample.image)
        if key is not None and key in self._names:
            return f"{key} is in {self._names[key]}"
        if self._digests:
            try:
                digest = _digest(load_image(sample.image))
            except EgmError:  # what cannot be read is found by those that train on it
                return None
            if digest in self._digests:
                return f"its pixels are those of a picture in {self._digests[digest]}"
        return None


def _key(name: str, image: object) -> str | None:
    """What two files of one picture share; of SynthRef the scene, as its pictures have the same names in all splits."""
    if name.startswith("synthref"):
        return name.rsplit("/", 1)[0]
    return leak_key(str(image)) if isinstance(image, str | Path) else None


def _digest(picture: Image) -> str:
    """A digest of the pixels, the same for the mirrored picture."""
    from PIL import ImageOps

    return min(_plain_digests((picture, ImageOps.mirror(picture))))


def _plain_digests(pictures: Iterable[Image]) -> list[str]:
    return [hashlib.sha256(f"{each.size}".encode() + each.tobytes()).hexdigest() for each in pictures]
