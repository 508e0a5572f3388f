"""Fields of a row, checked: words, sizes, and boxes in the notations that files have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from egm.boxes import Box
from egm.errors import BoxError, DataError

Row: TypeAlias = dict[str, Any]

BoxScale: TypeAlias = Literal["pixels", "0-1000", "pixels or 0-1000"]
"""What the numbers of a format's boxes mean: pixels of the upright image, thousandths of its sides, or either, as the
row says."""


def text(row: Mapping[str, Any], key: str) -> str:
    """A field that must hold words."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"has no {key}")
    return value


def pixels(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height of a row in whole pixels, or None if it gives neither."""
    width, height = row.get("width"), row.get("height")
    if width is None and height is None:
        return None
    if not (_whole(width) and _whole(height)):
        raise DataError(f"width {width!r} and height {height!r} are not whole numbers of pixels")
    assert width is not None
    assert height is not None
    return int(width), int(height)


def xyxy(numbers: Any, key: str = "bbox") -> Box:
    """A box given as `x1, y1, x2, y2` in pixels."""
    try:
        x1, y1, x2, y2 = _four(numbers)
        return Box(x1, y1, x2, y2)
    except (TypeError, ValueError, BoxError) as error:
        raise DataError(f"{key} {_short(numbers)} is not x1, y1, x2, y2 in pixels ({error})") from None


def xywh(numbers: Any, key: str = "bbox") -> Box:
    """A box given as COCO's `x, y, width, height` in pixels."""
    try:
        return Box.from_xywh(_four(numbers))
    except (TypeError, ValueError, BoxError) as error:
        raise DataError(f"{key} {_short(numbers)} is not x, y, width, height in pixels ({error})") from None


def scaled_1000(numbers: Any, size: tuple[int, int] | None, key: str) -> Box:
    """A box given on the 0-1000 scale, in pixels of an image of `size` (width, height)."""
    if size is None:
        raise DataError(f"{key} is on the 0-1000 scale, which needs width and height")
    try:
        return Box.from_1000(_four(numbers), size)
    except (TypeError, ValueError, BoxError) as error:
        raise DataError(f"{key} {_short(numbers)} is not x1, y1, x2, y2 on the 0-1000 scale ({error})") from None


def _four(numbers: Any) -> tuple[float, float, float, float]:
    if not isinstance(numbers, list | tuple):
        raise TypeError("not a list")
    if len(numbers) != 4:
        raise ValueError(f"{len(numbers)} numbers")
    for value in numbers:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise TypeError(f"{value!r} is not a number")
    a, b, c, d = numbers
    return a, b, c, d


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
