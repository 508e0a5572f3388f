"""Scenes: objects in a frame, some behind others, some leaving it, each with its visible and its whole box."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from egm.datasets.synthetic import raster
from egm.datasets.synthetic.raster import COLORS, FILLS, SHAPES
from egm.datasets.synthetic.rng import Rng

HELD_OUT = frozenset(
    {("green", "star"), ("purple", "triangle"), ("orange", "cross"), ("cyan", "diamond"), ("red", "square")}
)
"""Colours and shapes that never meet in a training scene; the test splits hold them on purpose."""

OBJECT_SIZES: dict[str, tuple[int, int]] = {"small": (9, 12), "medium": (16, 20), "large": (26, 33)}
"""Side of an object in percent of the frame's shorter side. The gaps keep "small" and "large" beyond doubt."""

_MIN_VISIBLE = 45  # percent of an object that must stay in sight
_MAX_AREA = 336 * 336
FRAMES = tuple((w, h) for w in range(160, 385, 32) for h in range(160, 385, 32) if 160 * 224 <= w * h <= _MAX_AREA)
"""Frame sizes, width and height: multiples of 32, so that no processor of the family resizes them."""

IntBox = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object.

    Attributes:
        shape: One of `SHAPES`.
        color: One of `COLORS`.
        size: One of `OBJECT_SIZES`.
        fill: One of `FILLS`.
        corner: Top left of its square, `x, y` in pixels.
        side: Side of its square in pixels.
        whole: The amodal box, which may leave the frame.
        visible: The modal box: what is left to see.
        seen: Percent of the object that is visible.
    """

    shape: str
    color: str
    size: str
    fill: str
    corner: tuple[int, int]
    side: int
    whole: IntBox
    visible: IntBox = (0, 0, 0, 0)
    seen: int = 100


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and what is in it.

    Attributes:
        size: Width and height in pixels.
        objects: Back to front.
        pixels: RGB, shape (height, width, 3), uint8.
        index: For each attribute and value, such as ("color", "red"), the objects that have it, as bits of an integer.
    """

    size: tuple[int, int]
    objects: tuple[SceneObject, ...]
    pixels: NDArray[np.uint8]
    index: dict[tuple[str, str], int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[tuple[str, str], int] = {}
        for i, item in enumerate(self.objects):
            for pair in (("shape", item.shape), ("color", item.color), ("size", item.size), ("fill", item.fill)):
                index[pair] = index.get(pair, 0) | 1 << i
        object.__setattr__(self, "index", index)


@lru_cache(maxsize=4096)
def _solid(shape: str, side: int) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = raster.coverage(shape, side) >= 128
    mask.setflags(write=False)
    return mask


def make_scene(rng: Rng, *, held_out: bool = False, size: tuple[int, int] | None = None) -> Scene:
    """Make a scene of 3-10 objects.

    Args:
        rng: Where the randomness comes from.
        held_out: Whether one or two objects are of the combinations in `HELD_OUT`; otherwise none is.
        size: Width and height of the frame in pixels; None draws one of `FRAMES`.
    """
    size = size or rng.choice(FRAMES)
    width, height = size
    pixels = raster.background(rng, size)
    wanted = rng.between(3, 10)
    rare = rng.between(1, 2) if held_out else 0
    # Few kinds in one scene, so that plain attributes often leave several candidates.
    shapes, colors = rng.shuffled(SHAPES)[: rng.between(2, 4)], rng.shuffled(tuple(COLORS))[: rng.between(2, 4)]
    owner = np.full((height, width), -1, dtype=np.int16)
    objects: list[SceneObject] = []
    areas: list[int] = []
    counts: list[int] = []
    tries = 0
    while len(objects) < 3 or (len(objects) < wanted and tries < wanted * 6):
        tries += 1
        if len(objects) < rare:
            color, shape = rng.choice(sorted(HELD_OUT))
        else:
            shape, color = rng.choice(shapes), rng.choice(colors)
            if (color, shape) in HELD_OUT:
                continue
        item = _place(rng, size, shape, color, objects)
        if not (0 <= item.corner[0] + item.side // 2 < width and 0 <= item.corner[1] + item.side // 2 < height):
            continue
        mask = _solid(shape, item.side)
        (top, bottom, left, right), (v1, v2, u1, u2) = raster.window((height, width), item.side, item.corner)
        inside = mask[v1:v2, u1:u2]
        full, shown = int(mask.sum()), int(inside.sum())
        if shown * 100 < full * _MIN_VISIBLE:
            continue
        region = owner[top:bottom, left:right]
        hidden = np.bincount(region[inside] + 1, minlength=len(objects) + 1)[1:]
        left_over = [count - int(lost) for count, lost in zip(counts, hidden, strict=True)]
        if any(count * 100 < area * _MIN_VISIBLE for count, area in zip(left_over, areas, strict=True)):
            continue
        region[inside] = len(objects)
        counts = left_over
        objects.append(item)
        areas.append(full)
        counts.append(shown)
    for item in objects:
        tint = tuple(min(255, max(0, c + rng.between(-12, 12))) for c in COLORS[item.color])
        raster.paint(pixels, item.shape, item.side, item.fill, (tint[0], tint[1], tint[2]), item.corner)
    seen = []
    for k, item in enumerate(objects):
        (top, bottom, left, right), _ = raster.window((height, width), item.side, item.corner)
        x1, y1, x2, y2 = raster.tight_box(owner[top:bottom, left:right] == k)
        box = (left + x1, top + y1, left + x2, top + y2)
        seen.append(replace(item, visible=box, seen=counts[k] * 100 // areas[k]))
    return Scene(size=size, objects=tuple(seen), pixels=pixels)


def _place(rng: Rng, size: tuple[int, int], shape: str, color: str, others: list[SceneObject]) -> SceneObject:
    """Choose size, fill and place: mostly free, sometimes against another object, sometimes over the frame's edge."""
    width, height = size
    name = rng.weighted((("small", 0.3), ("medium", 0.45), ("large", 0.25)))
    low, high = OBJECT_SIZES[name]
    side = min(size) * rng.between(low * 10, high * 10) // 1000
    mode = rng.random()
    if mode < 0.35 and others:
        other = rng.choice(others)
        reach = (side + other.side) // 2
        dx, dy = rng.between(-reach, reach) * 9 // 10, rng.between(-reach, reach) * 9 // 10
        x = other.corner[0] + other.side // 2 + dx - side // 2
        y = other.corner[1] + other.side // 2 + dy - side // 2
    elif mode < 0.5:
        x, y = rng.between(-side // 2, width - side // 2), rng.between(-side // 2, height - side // 2)
    else:
        for _ in range(6):
            x, y = rng.between(1, width - side - 1), rng.between(1, height - side - 1)
            if all(
                x + side <= o.corner[0]
                or o.corner[0] + o.side <= x
                or y + side <= o.corner[1]
                or o.corner[1] + o.side <= y
                for o in others
            ):
                break
    x1, y1, x2, y2 = raster.extent(shape, side)
    return SceneObject(
        shape=shape,
        color=color,
        size=name,
        fill=rng.weighted(tuple(zip(FILLS, (0.6, 0.2, 0.2), strict=True))),
        corner=(x, y),
        side=side,
        whole=(x + x1, y + y1, x + x2, y + y2),
    )
