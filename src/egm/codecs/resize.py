"""How Qwen's image processors resize a picture before the model sees it; needs none of the libraries that do it."""

from __future__ import annotations

import math


def smart_resize(
    size: tuple[int, int], *, factor: int, min_pixels: int, max_pixels: int, least: int = 0
) -> tuple[int, int]:
    """Work out the size that the image processors of Qwen's models give a picture.

    Both sides become multiples of `factor`, halves rounded to even, and the picture is shrunk or enlarged to have as
    many pixels as allowed. The arithmetic is that of `smart_resize` in transformers, and with `least` that of the one
    in https://github.com/QwenLM/Qwen3-VL/tree/main/qwen-vl-utils: they differ where a side is at most half of `factor`.

    Args:
        size: Width and height of the upright original picture in pixels.
        factor: Side of the square that one visual token covers, in pixels.
        min_pixels: Fewest pixels allowed.
        max_pixels: Most pixels allowed.
        least: What a side is rounded to at least before pixels are counted: 0, or `factor` as qwen-vl-utils does.

    Example:
        >>> smart_resize((640, 480), factor=32, min_pixels=4096, max_pixels=112_896)
        (384, 288)
    """
    width, height = (max(least, round(side / factor) * factor) for side in size)
    if width * height > max_pixels:
        shrink = math.sqrt(size[0] * size[1] / max_pixels)
        width, height = (max(factor, math.floor(side / shrink / factor) * factor) for side in size)
    elif width * height < min_pixels:
        grow = math.sqrt(min_pixels / (size[0] * size[1]))
        width, height = (math.ceil(side * grow / factor) * factor for side in size)
    return width, height
