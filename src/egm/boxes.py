"""The only geometry: boxes in pixels, their overlap, and the 0-1000 scale that models speak.

A box is `x1, y1, x2, y2` in pixels of the upright original image, origin at the top left, `x2 > x1` and `y2 > y1`.
Coordinates on the 0-1000 scale exist only inside codecs and carry `_1000` in their names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from egm.errors import BoxError

if TYPE_CHECKING:  # functions on arrays import numpy as they run: a box alone, and with it a codec, needs none
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    FloatArray: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box in pixels.

    Attributes:
        x1: Left edge.
        y1: Top edge.
        x2: Right edge, greater than `x1`.
        y2: Bottom edge, greater than `y1`.

    Raises:
        BoxError: If a number is not finite or the corners are not in order.

    Example:
        >>> Box(10, 20, 110, 70).area
        5000.0
    """

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        """Hold the invariant, so that no other code has to check it."""
        x1, y1, x2, y2 = self.x1, self.y1, self.x2, self.y2
        plain = type(x1) is type(y1) is type(x2) is type(y2) is float
        if plain and -math.inf < x1 < x2 < math.inf and -math.inf < y1 < y2 < math.inf:  # as nearly all are
            return
        for name in ("x1", "y1", "x2", "y2"):
            try:
                object.__setattr__(self, name, float(getattr(self, name)))
            except OverflowError:
                raise BoxError(f"{name} of a box is too large to be a coordinate") from None
        if not all(map(math.isfinite, self)):
            raise BoxError(f"box {tuple(self)} has a number that is not finite")
        if not (self.x2 > self.x1 and self.y2 > self.y1):
            raise BoxError(f"box {tuple(self)} is empty or inverted: x2 must exceed x1, and y2 exceed y1")

    def __iter__(self) -> Iterator[float]:
        """Yield `x1, y1, x2, y2`."""
        return iter(self.corners)

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """The numbers `x1, y1, x2, y2`."""
        return self.x1, self.y1, self.x2, self.y2

    @classmethod
    def from_xywh(cls, xywh: Iterable[float]) -> Box:
        """Make a box from COCO's `x, y, width, height`."""
        x, y, width, height = xywh
        return cls(x, y, x + width, y + height)

    @classmethod
    def from_1000(cls, box_1000: Iterable[float], size: tuple[int, int]) -> Box:
        """Make a box from coordinates on the 0-1000 scale.

        Args:
            box_1000: Four numbers, `x1, y1, x2, y2`.
            size: Width and height of the image in pixels.
        """
        x1, y1, x2, y2 = box_1000
        width, height = size
        return cls(x1 * width / 1000, y1 * height / 1000, x2 * width / 1000, y2 * height / 1000)

    def to_1000(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Round to the 0-1000 scale, half up; a box that leaves the frame leaves the scale.

        Args:
            size: Width and height of the image in pixels.
        """
        width, height = size
        return (
            math.floor(self.x1 * 1000 / width + 0.5),
            math.floor(self.y1 * 1000 / height + 0.5),
            math.floor(self.x2 * 1000 / width + 0.5),
            math.floor(self.y2 * 1000 / height + 0.5),
        )

    @property
    def width(self) -> float:
        """Width in pixels."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """Height in pixels."""
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return self.width * self.height

    def mirrored(self, width: float) -> Box:
        """Mirror the box left to right in an image of `width` pixels; an amodal box may stay outside the frame."""
        return Box(width - self.x2, self.y1, width - self.x1, self.y2)

    def clip(self, size: tuple[int, int]) -> Box | None:
        """Cut the box to the frame of an image, or return None if nothing of it is inside.

        Args:
            size: Width and height of the image in pixels.
        """
        width, height = size
        x1, y1, x2, y2 = max(self.x1, 0.0), max(self.y1, 0.0), min(self.x2, float(width)), min(self.y2, float(height))
        return Box(x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, in [0, 1].

    Example:
        >>> iou(Box(0, 0, 2, 2), Box(0, 0, 2, 1))
        0.5
    """
    return float(iou_array([tuple(a)], [tuple(b)])[0])


def giou(a: Box, b: Box) -> float:
    """Generalised IoU of two boxes, in (-1, 1] (Rezatofighi et al., 2019, arXiv 1902.09630).

    Example:
        >>> giou(Box(0, 0, 2, 2), Box(2, 2, 4, 4))
        -0.5
    """
    return float(giou_array([tuple(a)], [tuple(b)])[0])


def is_valid_array(boxes: ArrayLike) -> NDArray[np.bool_]:
    """Tell which rows of an N x 4 array are boxes: finite, with corners in order.

    Returns:
        Shape (N,).

    Example:
        >>> is_valid_array([(0, 0, 2, 2), (2, 2, 0, 0)]).tolist()
        [True, False]
    """
    return _are_valid(_as_boxes(boxes))


def iou_array(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """IoU row by row.

    Args:
        a: Boxes, shape (N, 4).
        b: Boxes, shape (N, 4).

    Returns:
        Shape (N,). Rows that are not boxes (see `is_valid_array`) score 0.

    Example:
        >>> iou_array([(0, 0, 2, 2), (0, 0, 1, 1)], [(0, 0, 2, 1), (5, 5, 6, 6)]).tolist()
        [0.5, 0.0]
    """
    return _iou(*_pair(_as_boxes(a), _as_boxes(b)))[0]


def giou_array(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Generalised IoU row by row (arXiv 1902.09630).

    Args:
        a: Boxes, shape (N, 4).
        b: Boxes, shape (N, 4).

    Returns:
        Shape (N,). Rows that are not boxes score -1, the infimum.

    Example:
        >>> giou_array([(0, 0, 2, 2), (0, 0, 2, 2)], [(0, 0, 2, 1), (2, 2, 4, 4)]).tolist()
        [0.5, -0.5]
    """
    import numpy as np

    a, b, valid = _pair(_as_boxes(a), _as_boxes(b))
    overlap, union = _iou(a, b, valid)
    hull = np.prod(np.maximum(a[:, 2:], b[:, 2:]) - np.minimum(a[:, :2], b[:, :2]), axis=1)
    # Rounding can leave the union a little over the hull; the empty share is never negative.
    empty = np.maximum(hull - union, 0.0) / np.where(hull > 0, hull, 1.0)
    return np.where(valid, overlap - empty, -1.0)


def pairwise_iou(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """IoU of every box of `a` (N, 4) with every box of `b` (M, 4), shape (N, M).

    Example:
        >>> pairwise_iou([(0, 0, 2, 2)], [(0, 0, 2, 1), (0, 0, 2, 2)]).tolist()
        [[0.5, 1.0]]
    """
    return _iou(*_pair(_as_boxes(a)[:, None], _as_boxes(b)[None]))[0]


def _pair(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Two sets of boxes, pair by pair at a scale where no area overflows, and which pairs are boxes (the others are 0).

    Args:
        a: Shape (..., 4).
        b: Of another shape (..., 4) that broadcasts with it.
    """
    import numpy as np

    valid = _are_valid(a) & _are_valid(b)
    a, b = np.where(valid[..., None], a, 0.0), np.where(valid[..., None], b, 0.0)
    # Scaling by a power of two is exact and leaves both measures as they are. Without it, the areas of what a model may
    # write, such as 1e200, are infinite, and a reward is not a number.
    exponent = np.frexp(np.maximum(np.abs(a).max(axis=-1), np.abs(b).max(axis=-1)))[1][..., None]
    return np.ldexp(a, -exponent), np.ldexp(b, -exponent), valid


def _iou(a: FloatArray, b: FloatArray, valid: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """IoU and union of what `_pair` returns."""
    import numpy as np

    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0.0)
    intersection = sides.prod(axis=-1)
    union = np.prod(a[..., 2:] - a[..., :2], axis=-1) + np.prod(b[..., 2:] - b[..., :2], axis=-1) - intersection
    ratio = np.where(valid, intersection / np.where(union > 0, union, 1.0), 0.0)
    return np.minimum(ratio, 1.0), union


def _are_valid(boxes: FloatArray) -> NDArray[np.bool_]:
    """Tell which boxes of shape (..., 4) are finite, with corners in order."""
    import numpy as np

    ordered = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    result: NDArray[np.bool_] = np.isfinite(boxes).all(axis=-1) & ordered
    return result


def _as_boxes(boxes: ArrayLike | Any) -> FloatArray:
    import numpy as np

    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise BoxError(f"boxes must have shape (N, 4), not {array.shape}")
    return array
