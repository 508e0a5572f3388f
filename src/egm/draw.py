"""Boxes drawn on pictures, for people to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from egm.boxes import Box

_Colour: TypeAlias = tuple[int, int, int] | str
_Corners: TypeAlias = tuple[float, float, float, float]

# Vermilion and blue stay apart for every common kind of colour blindness. Each line runs between two thin white ones,
# so that it is seen on any ground, its own colour included.
BOX_COLOUR: _Colour = (230, 60, 20)
TRUTH_COLOUR: _Colour = (0, 110, 220)
_PAPER: _Colour = (255, 255, 255)
_INK: _Colour = (0, 0, 0)
_OUTSIDE: _Colour = (190, 190, 190)

_LONG_SIDE = 448
_GAP = 12  # pixels between pictures side by side
_BAND_WIDTH = 320
_MAX_LINES = 6
_MAX_LISTED_LINES = 2  # of each caption, where there is a list of them
_MAX_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class NumberedBoxes:
    """What one number stands for on a picture.

    Attributes:
        caption: Text beside the number, below the picture.
        boxes: In pixels of the picture; each bears the number.
        colour: Of the boxes and the number.
    """

    caption: str
    boxes: tuple[Box, ...]
    colour: _Colour


@dataclass(frozen=True, slots=True)
class _Shape:
    box: Box
    colour: _Colour
    dashed: bool = False
    label: str = ""


def draw_boxes(
    image: Image.Image,
    *,
    box: Box | Sequence[Box] | None = None,
    truth: Box | Sequence[Box] | None = None,
    caption: str = "",
) -> Image.Image:
    """Draw a box, the true box and a caption on a copy of a picture.

    Small pictures are enlarged by a whole factor until the longer side has 448 pixels. Lines run outside the box, so
    that they hide nothing of a small object; where a line or an amodal box leaves the frame, a grey margin is added, at
    most half the longer side, and what lies beyond that is cut off. The caption stands in a white band below, wrapped,
    with a key to the colours if there are two boxes; letters that Pillow's own font lacks come out as empty rectangles.

    Args:
        image: Upright picture, any mode; not changed.
        box: The answer, or several, in pixels of `image`, drawn in vermilion.
        truth: The true box, or several, in pixels of `image`, drawn in blue, dashed, so that an equal box beneath it
            shows.
        caption: Text for the band; none if empty.

    Returns:
        A new RGB picture, at least as large as `image`.

    Example:
        >>> drawn = draw_boxes(Image.new("RGB", (640, 480)), box=Box(64, 96, 192, 192), caption="the cup")
        >>> drawn.width, drawn.height > 480  # the caption stands below
        (640, True)
    """
    answers, truths = _listed(box), _listed(truth)
    shapes = [*(_Shape(each, BOX_COLOUR) for each in answers), *(_Shape(each, TRUTH_COLOUR, True) for each in truths)]
    key = [("box", BOX_COLOUR), ("truth", TRUTH_COLOUR)] if answers and truths else []
    return _with_band(_with_shapes(image, shapes), _clean(caption), key)


def draw_numbered(image: Image.Image, answers: Sequence[NumberedBoxes]) -> Image.Image:
    """Draw the boxes of several captions on one copy of a picture, as `draw_boxes` draws those of one.

    Args:
        image: Upright picture, any mode; not changed.
        answers: Their numbers are counted from 1. Below the picture stands a list of them, each with its caption, which
            is cut off after two lines; its letters are smaller where otherwise the list would outgrow the picture.

    Returns:
        A new RGB picture, at least as large as `image`.

    Example:
        >>> cups = NumberedBoxes("cups", (Box(64, 96, 192, 192), Box(300, 96, 400, 192)), "#0060c0")
        >>> drawn = draw_numbered(Image.new("RGB", (640, 480)), [cups])
        >>> drawn.width, drawn.height > 480  # the list stands below
        (640, True)
    """
    numbered = list(enumerate(answers, start=1))
    shapes = [_Shape(box, each.colour, label=str(number)) for number, each in numbered for box in each.boxes]
    return _with_list(
        _with_shapes(image, shapes), [(str(n), _clean(each.caption), each.colour) for n, each in numbered]
    )


def fitted(image: Image.Image, most: int) -> tuple[Image.Image, float]:
    """Make a large picture smaller.

    Args:
        image: Any picture; not changed.
        most: Pixels that its longer side may have.

    Returns:
        A smaller copy and its scale, at most 1; a picture that fits comes back as it is.
    """
    scale = most / max(image.size)
    if scale >= 1:
        return image, 1.0
    return image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), reducing_gap=2.0
    ), scale


def side_by_side(panels: Sequence[Image.Image]) -> Image.Image:
    """Put pictures in a row on white, their tops level; one alone comes back as it is."""
    if len(panels) == 1:
        return panels[0]
    width = sum(panel.width for panel in panels) + _GAP * (len(panels) - 1)
    canvas = Image.new("RGB", (width, max(panel.height for panel in panels)), _PAPER)
    left = 0
    for panel in panels:
        canvas.paste(panel, (left, 0))
        left += panel.width + _GAP
    return canvas


def _with_shapes(image: Image.Image, shapes: Sequence[_Shape]) -> Image.Image:
    """A copy of a picture, large enough to be looked at, with outlines and, where they leave it, a margin."""
    picture = image.convert("RGB")
    scale = max(1, math.ceil(_LONG_SIDE / max(picture.size)))
    if scale > 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    line = max(3, round(max(picture.size) / 160))
    halo = max(1, line // 3)
    left, top, right, bottom = _margins(picture.size, [_grown(shape.box, scale, line + 2 * halo) for shape in shapes])
    canvas = Image.new("RGB", (left + picture.width + right, top + picture.height + bottom), _OUTSIDE)
    canvas.paste(picture, (left, top))
    corners = []
    for shape in shapes:
        x1, y1, x2, y2 = _grown(shape.box, scale, 0)
        corners.append((x1 + left, y1 + top, x2 + left, y2 + top))
        _outline(canvas, corners[-1], line, halo, shape.colour, dashed=shape.dashed)
    letter = max(14, max(picture.size) // 32)
    for shape, (x1, y1, _, _) in zip(shapes, corners, strict=True):  # over all outlines, so that each can be read
        if shape.label:
            _tag(canvas, (x1, y1 - 1.25 * letter), letter, shape.label, shape.colour)
    return canvas


def _listed(box: Box | Sequence[Box] | None) -> list[Box]:
    return [] if box is None else [box] if isinstance(box, Box) else list(box)


def _grown(box: Box, scale: int, by: int) -> _Corners:
    return box.x1 * scale - by, box.y1 * scale - by, box.x2 * scale + by, box.y2 * scale + by


def _margins(size: tuple[int, int], extents: list[_Corners]) -> tuple[int, int, int, int]:
    """How far left, above, right and below the frame the drawing reaches, in pixels."""
    width, height = size
    limit = max(size) // 2

    def reach(overhangs: list[float]) -> int:
        return math.ceil(min(max([0.0, *overhangs]), limit))

    return (
        reach([-x1 for x1, _, _, _ in extents]),
        reach([-y1 for _, y1, _, _ in extents]),
        reach([x2 - width for _, _, x2, _ in extents]),
        reach([y2 - height for _, _, _, y2 in extents]),
    )


def _outline(canvas: Image.Image, corners: _Corners, line: int, halo: int, colour: _Colour, *, dashed: bool) -> None:
    band = line + 2 * halo
    # Clamped just out of sight, so that the sides beyond the canvas vanish and a box of any size costs the same.
    far = 2 * band
    x1, x2 = (round(min(max(x, -far), canvas.width + far)) for x in (corners[0], corners[2]))
    y1, y2 = (round(min(max(y, -far), canvas.height + far)) for y in (corners[1], corners[3]))
    dash = 5 * band if dashed else max(canvas.size) * 2 + 8 * far
    step = dash + 3 * band
    pieces = []
    for start in range(x1 - band, x2 + band, step):
        end = min(start + dash, x2 + band)
        pieces += [(start, y1 - band, end, y1), (start, y2, end, y2 + band)]
    for start in range(y1 - band, y2 + band, step):
        end = min(start + dash, y2 + band)
        pieces += [(x1 - band, start, x1, end), (x2, start, x2 + band, end)]
    draw = ImageDraw.Draw(canvas)
    for inset, fill in ((0, _PAPER), (halo, colour)):
        for left, top, right, bottom in pieces:
            # Pillow counts the far corner in.
            if right - left > 2 * inset and bottom - top > 2 * inset:
                draw.rectangle((left + inset, top + inset, right - inset - 1, bottom - inset - 1), fill=fill)


def _with_band(canvas: Image.Image, caption: str, key: list[tuple[str, _Colour]]) -> Image.Image:
    if not caption and not key:
        return canvas
    width = max(canvas.width, _BAND_WIDTH)
    size = max(14, width // 32)
    font = ImageFont.load_default(size)
    pad, leading = size // 2, round(size * 1.4)
    lines = _wrap(caption, font, width - 2 * pad)
    height = 2 * pad + leading * (len(lines) + bool(key))
    result = _above_paper(canvas, width, height)
    draw = ImageDraw.Draw(result)
    y = canvas.height + pad
    for text in lines:
        draw.text((pad, y), text, fill=_INK, font=font)
        y += leading
    x: float = pad
    for name, colour in key:
        draw.rectangle((x, y + size // 4, x + size, y + size), fill=colour)
        draw.text((x + size * 1.4, y), name, fill=_INK, font=font)
        x += size * 3 + font.getlength(name)
    return result


def _with_list(canvas: Image.Image, rows: Sequence[tuple[str, str, _Colour]]) -> Image.Image:
    """Put numbers and captions below a picture."""
    width = max(canvas.width, _BAND_WIDTH)
    size = max(14, min(width // 32, canvas.height // (2 * max(1, len(rows)))))
    font = ImageFont.load_default(size)
    pad, leading, indent = size // 2, round(size * 1.4), round(size * 2.4)
    lines = [_wrap(caption, font, width - 2 * pad - indent, _MAX_LISTED_LINES) or [""] for _, caption, _ in rows]
    result = _above_paper(canvas, width, 2 * pad + leading * sum(map(len, lines)))
    draw, y = ImageDraw.Draw(result), canvas.height + pad
    for (number, _, colour), wrapped in zip(rows, lines, strict=True):
        _tag(result, (pad, y), size, number, colour)
        for text in wrapped:
            draw.text((pad + indent, y), text, fill=_INK, font=font)
            y += leading
    return result


def _above_paper(canvas: Image.Image, width: int, height: int) -> Image.Image:
    """A picture in the middle of a width, above a white band of a height."""
    result = Image.new("RGB", (width, canvas.height + height), _PAPER)
    result.paste(_OUTSIDE, (0, 0, width, canvas.height))
    result.paste(canvas, ((width - canvas.width) // 2, 0))
    return result


def _tag(canvas: Image.Image, place: tuple[float, float], size: int, label: str, colour: _Colour) -> None:
    """Write a label in white on a ground of a colour, as near to a place as it is within the canvas."""
    width, height = round(size * (0.6 + 0.6 * len(label))), round(size * 1.25)
    x = round(min(max(place[0], 0), canvas.width - width))
    y = round(min(max(place[1], 0), canvas.height - height))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour, outline=_PAPER)
    font = ImageFont.load_default(size)
    draw.text((x + width / 2, y + height / 2), label, fill=_PAPER, font=font, anchor="mm")


def _clean(caption: str) -> str:
    """One line of printable characters: control characters and lone surrogates would make the font code raise."""
    words = " ".join(caption[: 4 * _MAX_CHARACTERS].split())
    return "".join(filter(str.isprintable, words))[:_MAX_CHARACTERS].strip()


def _wrap(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float, most: int = _MAX_LINES
) -> list[str]:
    lines: list[str] = []
    current = ""
    for word in text.split():
        candidate = f"{current} {word}".strip()
        if font.getlength(candidate) <= width:
            current = candidate
            continue
        if current:
            lines.append(current)
        current = word
        # A word wider than the band is cut between letters.
        while font.getlength(current) > width and len(current) > 1:
            fits = next(n for n in range(len(current) - 1, 0, -1) if n == 1 or font.getlength(current[:n]) <= width)
            lines.append(current[:fits])
            current = current[fits:]
    if current:
        lines.append(current)
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and font.getlength(last + " ...") > width:
        last = last[:-1]
    return [*lines[: most - 1], last.rstrip() + " ..."]
