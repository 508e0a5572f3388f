"""Pictures that can be asked about: samples that come with the package, and uploads, which are held in memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from egm.datasets.synthetic import SynthRef
from egm.datasets.synthetic.example import example_picture
from egm.draw import fitted
from egm.errors import EgmError
from egm.images import MAX_PIXELS, ImageSource, load_image
from egm.terminal import printable
from egm.types import Expect
from egm.web.kept import Kept

if TYPE_CHECKING:
    from PIL.Image import Image

_PREVIEW_SIDE: Final = 1280
_MOST_UPLOADS: Final = 32
_LONGEST_NAME: Final = 80
_JPEG: Final = b"\xff\xd8\xff"
MOST_BYTES: Final = 6 * MAX_PIXELS
"""Most bytes of pictures that are kept: one of the largest, or many more of any usual size."""


@dataclass(frozen=True)
class WebPicture:
    """A picture that is asked about.

    Attributes:
        name: What to call it.
        image: Upright and in RGB.
        source: What it was loaded from, where that may be sent in its place.
        uploaded: Whether it is somebody's own.
    """

    name: str
    image: Image
    source: ImageSource
    uploaded: bool = False

    @cached_property
    def preview(self) -> bytes:
        """The picture as a browser shows it: WebP, a large one smaller."""
        shown, _ = fitted(self.image, _PREVIEW_SIDE)
        stream = io.BytesIO()
        # What is drawn in few colours blurs where it is packed as a photograph.
        few = shown.getcolors(256) is not None
        shown.save(stream, "WEBP", lossless=few, quality=85)
        return stream.getvalue()

    @property
    def weight(self) -> int:
        """Bytes that it takes in memory; Pillow keeps a pixel in four."""
        return 4 * self.image.width * self.image.height + (len(self.source) if isinstance(self.source, bytes) else 0)


@dataclass(frozen=True, slots=True)
class WebSample:
    """A picture to begin with, and phrases that egm-tiny understands.

    Attributes:
        title: What to call it.
        phrases: The phrases.
        expect: How many boxes they ask for.
        load: Makes the picture.
    """

    title: str
    phrases: tuple[str, ...]
    expect: Expect
    load: Callable[[], WebPicture]


def samples() -> dict[str, WebSample]:
    """The samples by their titles: the example picture, and scenes of SynthRef that egm-tiny was not trained on."""

    def example() -> WebPicture:
        path = example_picture()
        return WebPicture(path.name, load_image(path), path)

    phrases = ("the cross farthest from the square", "the solid object right of the solid cross")
    found = [WebSample("example", phrases, "one", example)]
    for title, split, number, expect in (
        ("relations", "test-complex", 3, "one"),
        ("one or none", "test-none", 1, "any"),
        ("how many?", "test-all", 1, "all"),
    ):
        found.append(_scene(title, split, number, expect))
    return {sample.title: sample for sample in found}


def _scene(title: str, split: str, number: int, expect: str) -> WebSample:
    data = SynthRef(split)
    asked = [sample for sample in data.samples(number) if not sample.amodal]
    wanted = [sample for sample in asked if sample.expect == expect] or asked

    def load() -> WebPicture:
        from PIL import Image

        image = Image.fromarray(data.scene(number).pixels)
        return WebPicture(f"synthref-{split}-{number}.png", image, image)

    return WebSample(title, tuple(sample.phrase for sample in wanted[:2]), wanted[0].expect, load)


class Uploads:
    """Pictures that were uploaded, for as long as there is room for them; none is ever written to disk."""

    def __init__(self) -> None:
        self._kept: Kept[WebPicture] = Kept(_MOST_UPLOADS, MOST_BYTES)

    def add(self, data: bytes, name: str) -> tuple[str, WebPicture]:
        """Take a picture in.

        Args:
            data: The file.
            name: What its owner calls it.

        Returns:
            The name to ask for it by, and the picture.

        Raises:
            ImageError: As `load_image` raises.
        """
        shown = printable(name.replace("\\", "/").rpartition("/")[2])[:_LONGEST_NAME].strip() or "picture"
        try:
            image = load_image(data)
        except EgmError as error:
            raise type(error)(str(error).replace("the given byte string", repr(shown), 1)) from None
        picture = WebPicture(shown, image, data if data[:3] == _JPEG else image, uploaded=True)
        return self.keep(picture), picture

    def keep(self, picture: WebPicture) -> str:
        """Keep a picture, and return the name to ask for it by; that of before, where it is kept already."""
        return self._kept.name_of(picture) or self._kept.add(picture, weight=picture.weight)

    def get(self, name: object) -> WebPicture | None:
        """Return a picture by that name; None where it is no longer kept."""
        return self._kept.get(name)
