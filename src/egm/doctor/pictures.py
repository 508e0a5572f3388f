"""The built-in pictures: 24 drawn scenes whose boxes are known exactly, of sizes that stress positions.

They are SynthRef's scenes, so that egm-tiny knows what is in them, but of frames that it never saw too. What is
compared is an engine with a reference, so that a model which answers them wrongly serves as well.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from egm.boxes import Box
from egm.errors import EgmError, nearest

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES_VERSION: Final = 1
"""Raised whenever a picture or a phrase becomes another one."""

_ORIENTATION = 0x0112

File = Literal["turned", "grey", "palette"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a picture is made.

    Attributes:
        size: Width and height of the upright picture in pixels.
        scene: Number of the scene of that size.
        phrase: What to find: "the", a colour unless the picture is grey, and a shape, of which there is one.
        about: What the size is for.
        file: Whether its file is a JPEG that EXIF turns upright, or a grey or palette PNG.
        twin: The picture of the same size and phrase that is asked just before it.
    """

    size: tuple[int, int]
    scene: int
    phrase: str
    about: str
    file: File | None = None
    twin: str | None = None


RECIPES: Final = {
    "224": Recipe((224, 224), 0, "the yellow square", "multiple of 28 and of 32"),
    "twin-1": Recipe((320, 256), 7, "the purple diamond", "multiple of 32"),
    "twin-2": Recipe((320, 256), 33, "the purple diamond", "same size and phrase", twin="twin-1"),
    "twin-3": Recipe((288, 320), 4, "the red triangle", "multiple of 32"),
    "twin-4": Recipe((288, 320), 21, "the red triangle", "same size and phrase", twin="twin-3"),
    "tall": Recipe((192, 352), 3, "the blue triangle", "tall, odd grid"),
    "wide": Recipe((384, 256), 0, "the blue diamond", "wide"),
    "1:3": Recipe((200, 600), 0, "the red diamond", "one to three, no multiple"),
    "odd-1": Recipe((224, 288), 2, "the blue diamond", "grid of 7 by 9"),
    "odd-2": Recipe((352, 160), 3, "the green square", "grid of 11 by 5"),
    "448": Recipe((448, 224), 7, "the blue square", "multiple of 28 and of 32, wide"),
    "200": Recipe((200, 200), 1, "the orange circle", "halfway between multiples"),
    "5:1": Recipe((500, 100), 0, "the green triangle", "five to one, no multiple"),
    "333": Recipe((333, 250), 2, "the yellow cross", "no multiple"),
    "1:5": Recipe((96, 480), 1, "the green diamond", "one to five"),
    "275": Recipe((275, 201), 1, "the green diamond", "no multiple"),
    "mega-1": Recipe((1280, 960), 4, "the purple cross", "over a megapixel"),
    "mega-2": Recipe((1234, 987), 0, "the green triangle", "over a megapixel, no multiple"),
    "4:1": Recipe((640, 160), 1, "the yellow square", "four to one"),
    "1:4": Recipe((150, 610), 1, "the cyan circle", "one to four, no multiple"),
    "tiny": Recipe((48, 64), 0, "the orange square", "below the fewest pixels"),
    "turned": Recipe((320, 224), 2, "the orange diamond", "JPEG turned by EXIF", file="turned"),
    "grey": Recipe((256, 288), 0, "the cross", "grey", file="grey"),
    "palette": Recipe((288, 256), 2, "the red circle", "palette", file="palette"),
}
"""The pictures by name, in the order in which they are asked."""


CONTROLS: Final = ("the red circle", "the largest green square")
"""Phrases that are asked without a picture: what changes their answers too does not lie in what the model sees."""


@dataclass(frozen=True)
class Picture:
    """A built-in picture and what is asked about it.

    Attributes:
        name: Its name in `RECIPES`.
        recipe: How it is made.
        image: Upright RGB.
        box: Where the referent is, in pixels: the tight box of what is drawn.
        file: The bytes of its file, where that is not the plain picture.
    """

    name: str
    recipe: Recipe
    image: Image
    box: Box
    file: bytes | None = None

    @property
    def phrase(self) -> str:
        """What to find."""
        return self.recipe.phrase

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of its size, its pixels and the phrase."""
        width, height = self.image.size
        head = f"{width} {height} {self.phrase}\n".encode()
        return hashlib.sha256(head + self.image.tobytes()).hexdigest()[:16]


def built_in_pictures(names: Sequence[str] | None = None) -> list[Picture]:
    """Draw the built-in pictures.

    Args:
        names: Which, of `RECIPES`; None is all of them. The order is always that of `RECIPES`.

    Raises:
        EgmError: If there is none of that name.

    Example:
        >>> [picture.image.size for picture in built_in_pictures(["odd-1", "tiny"])]
        [(224, 288), (48, 64)]
    """
    for name in names or ():
        if name not in RECIPES:
            raise EgmError(f"there is no built-in picture {name!r}: {nearest(name, tuple(RECIPES))}")
    return [_draw(name) for name in RECIPES if names is None or name in names]


@lru_cache(maxsize=len(RECIPES))
def _draw(name: str) -> Picture:
    from PIL import Image

    from egm.datasets.synthetic.rng import Rng
    from egm.datasets.synthetic.scenes import make_scene

    recipe = RECIPES[name]
    width, height = recipe.size
    scene = make_scene(Rng(f"doctor{PICTURES_VERSION}/{width}x{height}/{recipe.scene}"), size=recipe.size)
    words = recipe.phrase.split()[1:]
    (referent,) = [item for item in scene.objects if set(words) <= {item.color, item.shape}]
    pixels, box = scene.pixels, Box(*referent.visible)
    # In arithmetic of its own: what Pillow makes of colours may change with its version, and so would the digests.
    if recipe.file == "grey":
        pixels = (pixels.astype("uint32") @ (299, 587, 114) // 1000).astype("uint8")[:, :, None].repeat(3, axis=2)
    elif recipe.file == "palette":
        pixels = (pixels // 43 * 51).astype("uint8")
    image = Image.fromarray(pixels)
    return Picture(name, recipe, image, box, None if recipe.file is None else _file(image, recipe.file))


def _file(image: Image, kind: File) -> bytes:
    from PIL.Image import Exif, Transpose

    stream = io.BytesIO()
    if kind == "turned":
        exif = Exif()
        exif[_ORIENTATION] = 6  # to be turned clockwise
        image.transpose(Transpose.ROTATE_90).save(stream, "JPEG", quality=95, exif=exif)
    elif kind == "grey":
        image.convert("L").save(stream, "PNG")
    else:  # at most 216 colours, so that nothing is lost
        image.quantize(256).save(stream, "PNG")
    return stream.getvalue()
