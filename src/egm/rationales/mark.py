"""The mark: the true box drawn on a copy of the picture for the teacher to see, in a colour that shows there."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from egm.boxes import Box

_Corners: TypeAlias = tuple[int, int, int, int]

COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "green": (0, 230, 0),
    "red": (235, 0, 0),
    "blue": (0, 60, 255),
    "yellow": (255, 235, 0),
    "magenta": (255, 0, 220),
    "cyan": (0, 230, 255),
}
"""Colours of marks by name; the first of those that show equally well is taken."""
_LEAST_FAR: Final = 10.0
"""The percentile of the pixels along the border, by how far from the colour they are, that a colour is judged by: it
has to show nearly everywhere, and may be lost here and there."""


def stroke_width(size: tuple[int, int]) -> int:
    """Width of the mark's line in pixels: one in 160 of the picture's longer side, at least 2.

    Args:
        size: Width and height of the picture in pixels.
    """
    return max(2, round(max(size) / 160))


def choose_colour(picture: Image.Image, box: Box) -> str:
    """Name the colour that shows best along the border of a box; equal pictures and boxes give equal colours.

    Args:
        picture: Upright RGB picture.
        box: In pixels; what of it leaves the frame is drawn along the frame.
    """
    border = _border(np.asarray(picture), _corners(picture.size, box), 2 * stroke_width(picture.size))
    names = list(COLOURS)
    shows = [float(np.percentile(_distances(border, COLOURS[name]), _LEAST_FAR)) for name in names]
    return names[int(np.argmax(np.round(shows, 6)))]


def draw_mark(picture: Image.Image, box: Box, colour: str) -> Image.Image:
    """Draw a box on a copy of a picture, its line outside of the box as far as the frame lets it.

    Args:
        picture: Upright RGB picture; not changed.
        box: In pixels.
        colour: One of `COLOURS`.
    """
    marked = picture.copy()
    width = stroke_width(picture.size)
    ImageDraw.Draw(marked).rectangle(_corners(picture.size, box), outline=COLOURS[colour], width=width)
    return marked


def _corners(size: tuple[int, int], box: Box) -> _Corners:
    """Outer corners of the line in whole pixels, both counted in, inside the frame."""
    width = stroke_width(size)
    left, top = (min(max(0, round(value) - width), side - 1 - width) for value, side in zip(box, size, strict=False))
    right = max(min(size[0] - 1, round(box.x2) - 1 + width), left + width)
    bottom = max(min(size[1] - 1, round(box.y2) - 1 + width), top + width)
    return max(left, 0), max(top, 0), right, bottom


def _border(pixels: NDArray[np.uint8], corners: _Corners, band: int) -> NDArray[np.float64]:
    """Pixels beneath and beside the line, shape (N, 3)."""
    left, top, right, bottom = corners
    outer = pixels[max(0, top - band // 2) : bottom + 1 + band // 2, max(0, left - band // 2) : right + 1 + band // 2]
    edges = (outer[:band], outer[-band:], outer[:, :band], outer[:, -band:])
    return np.concatenate([edge.reshape(-1, 3) for edge in edges]).astype(np.float64)


def _distances(pixels: NDArray[np.float64], colour: tuple[int, int, int]) -> NDArray[np.float64]:
    """How far apart pixels and a colour look: the "redmean" weighting of RGB (compuphase.com/cmetric.htm)."""
    difference = pixels - np.asarray(colour, dtype=np.float64)
    mean_red = (pixels[:, 0] + colour[0]) / 2
    weights = np.stack([2 + mean_red / 256, np.full_like(mean_red, 4.0), 2 + (255 - mean_red) / 256], axis=1)
    result: NDArray[np.float64] = np.sqrt((weights * difference**2).sum(axis=1))
    return result
