"""Drawing in integer arithmetic: shapes as cached coverage masks, so that pictures are the same bytes everywhere."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from egm.datasets.synthetic.rng import Rng

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")
FILLS = ("solid", "striped", "dotted")

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (240, 215, 45),
    "green": (45, 160, 60),
    "cyan": (45, 195, 215),
    "blue": (40, 80, 210),
    "purple": (145, 60, 185),
}

# A five-pointed star in thousandths of its half-width, clockwise from the top: no library's sine is asked.
_STAR = (
    (0, -1000),
    (259, -357),
    (951, -309),
    (419, 136),
    (588, 809),
    (0, 441),
    (-588, 809),
    (-419, 136),
    (-951, -309),
    (-259, -357),
)
_SUPERSAMPLING = 4


def _inside(shape: str, side: int) -> NDArray[np.bool_]:
    """Tell which pixel centres of a `side` x `side` square are inside a shape, in doubled integer coordinates."""
    axis = 2 * np.arange(side, dtype=np.int64) + 1 - side
    u, v = axis[None, :], axis[:, None]
    if shape == "circle":
        return np.asarray(u * u + v * v <= side * side)
    if shape == "square":
        return np.ones((side, side), dtype=np.bool_)
    if shape == "triangle":
        return np.asarray(2 * np.abs(u) <= v + side)
    if shape == "diamond":
        return np.asarray(np.abs(u) + np.abs(v) <= side)
    if shape == "cross":
        return np.asarray((3 * np.abs(u) <= side) | (3 * np.abs(v) <= side))
    if shape == "star":
        odd = np.zeros((side, side), dtype=np.bool_)
        for (x1, y1), (x2, y2) in zip(_STAR, (*_STAR[1:], _STAR[0]), strict=True):
            if y1 != y2:  # even-odd rule: count the edges to the right of each point, all scaled by 1000
                crosses = (y1 * side > 1000 * v) != (y2 * side > 1000 * v)
                left = (1000 * u - x1 * side) * (y2 - y1) < (1000 * v - y1 * side) * (x2 - x1)
                odd ^= crosses & (left if y2 > y1 else ~left)
        return odd
    raise ValueError(f"no shape is called {shape!r}")


@lru_cache(maxsize=4096)
def coverage(shape: str, side: int) -> NDArray[np.uint16]:
    """Return the share of each pixel that a shape covers, 0-255, shape (side, side); cached, read only."""
    fine = _inside(shape, side * _SUPERSAMPLING).astype(np.uint16)
    blocks = fine.reshape(side, _SUPERSAMPLING, side, _SUPERSAMPLING).sum(axis=(1, 3), dtype=np.uint16)
    result: NDArray[np.uint16] = (blocks * 255) // _SUPERSAMPLING**2
    result.setflags(write=False)
    return result


@lru_cache(maxsize=4096)
def extent(shape: str, side: int) -> tuple[int, int, int, int]:
    """Return the tight box `x1, y1, x2, y2` of a shape within its square: pixels at least half covered."""
    return tight_box(coverage(shape, side) >= 128)


@lru_cache(maxsize=4096)
def _body(shape: str, side: int, fill: str) -> NDArray[np.uint8]:
    """Return 0 for the first colour, 1 for the second, 2 for the outline, shape (side, side)."""
    axis = np.arange(side, dtype=np.int64)
    x, y = axis[None, :], axis[:, None]
    period = max(4, side // 5)
    second: NDArray[np.bool_]
    if fill == "striped":
        second = (x + y) % period * 2 >= period
    elif fill == "dotted":
        dx, dy = 2 * (x % period) + 1 - period, 2 * (y % period) + 1 - period
        second = 4 * (dx * dx + dy * dy) <= period * period * 2
    else:
        second = np.zeros((side, side), dtype=np.bool_)
    solid = np.pad(coverage(shape, side) >= 128, 1)
    inner = solid.copy()
    for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        inner &= np.roll(solid, shift, axis=(0, 1))
    body = second.astype(np.uint8)
    body[~inner[1:-1, 1:-1]] = 2
    body.setflags(write=False)
    return body


def paint(
    pixels: NDArray[np.uint8],
    shape: str,
    side: int,
    fill: str,
    color: tuple[int, int, int],
    corner: tuple[int, int],
) -> None:
    """Paint a shape in place.

    Args:
        pixels: Picture, shape (height, width, 3).
        shape: One of `SHAPES`.
        side: Side of the square that holds the shape, in pixels.
        fill: One of `FILLS`.
        color: Its colour, RGB.
        corner: Top left of the square, `x, y`; may lie outside the frame.
    """
    (top, bottom, left, right), (v1, v2, u1, u2) = window(pixels.shape[:2], side, corner)
    second = tuple(c * 2 // 5 for c in color) if fill == "striped" else tuple((c + 3 * 255) // 4 for c in color)
    palette = np.array([color, second, tuple(c // 2 for c in color)], dtype=np.uint16)
    tile = palette[_body(shape, side, fill)[v1:v2, u1:u2]]
    alpha = coverage(shape, side)[v1:v2, u1:u2, None]
    under = pixels[top:bottom, left:right]
    pixels[top:bottom, left:right] = ((under * (255 - alpha) + tile * alpha + 127) // 255).astype(np.uint8)


def window(
    frame: tuple[int, ...], side: int, corner: tuple[int, int]
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Return where a square meets the frame: rows and columns in the picture, and the same in the square."""
    height, width = frame
    x, y = corner
    left, right, top, bottom = max(x, 0), min(x + side, width), max(y, 0), min(y + side, height)
    return (top, bottom, left, right), (top - y, bottom - y, left - x, right - x)


def tight_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the tight box `x1, y1, x2, y2` of a mask, right and bottom edges exclusive."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def background(rng: Rng, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Make a dull background: a gradient, checks or noise, shape (height, width, 3)."""
    width, height = size
    level = rng.between(60, 110) if rng.chance(0.5) else rng.between(175, 230)
    base = [level + rng.between(-8, 8) for _ in range(3)]
    x, y = np.arange(width, dtype=np.int16)[None, :], np.arange(height, dtype=np.int16)[:, None]
    kind = rng.choice(("gradient", "checks", "noise", "stripes"))
    depth = rng.between(8, 24)
    if kind == "gradient":
        a, b = rng.between(-8, 8), rng.between(-8, 8)
        shade = (a * x * 64 // width + b * y * 64 // height) * depth // 512
    elif kind == "checks":
        cell = rng.between(8, 32)
        shade = ((x // cell + y // cell) % 2) * depth - depth // 2
    elif kind == "stripes":
        cell = rng.between(6, 24)
        shade = ((x * rng.between(0, 2) + y) // cell % 2) * depth - depth // 2
    else:
        cell = rng.choice((1, 2, 4))
        rows, columns = -(-height // cell), -(-width // cell)
        grain = np.frombuffer(rng.bytes(rows * columns), dtype=np.uint8).reshape(rows, columns).astype(np.int16)
        shade = np.repeat(np.repeat(grain * depth // 255 - depth // 2, cell, axis=0), cell, axis=1)[:height, :width]
    low = np.broadcast_to(shade, (height, width)).astype(np.uint8)  # below zero wraps, and wraps back when added
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for channel, value in enumerate(base):
        np.add(low, np.uint8(value), out=pixels[:, :, channel])
    return pixels
