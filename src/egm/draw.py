"""Boxes drawn on pictures, for people to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from egm.boxes import Box

_Colour: TypeAlias = tuple[int, int, int]
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
_MAX_CHARACTERS = 1000


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
    picture = image.convert("RGB")
    scale = max(1, math.ceil(_LONG_SIDE / max(picture.size)))
    if scale > 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    line = max(3, round(max(picture.size) / 160))
    halo = max(1, line // 3)
    answers, truths = _listed(box), _listed(truth)
    shapes = [(shape, BOX_COLOUR, False) for shape in answers] + [(shape, TRUTH_COLOUR, True) for shape in truths]
    left, top, right, bottom = _margins(picture.size, [_grown(shape, scale, line + 2 * halo) for shape, _, _ in shapes])
    canvas = Image.new("RGB", (left + picture.width + right, top + picture.height + bottom), _OUTSIDE)
    canvas.paste(picture, (left, top))
    for shape, colour, dashed in shapes:
        x1, y1, x2, y2 = _grown(shape, scale, 0)
        _outline(canvas, (x1 + left, y1 + top, x2 + left, y2 + top), line, halo, colour, dashed=dashed)
    key = [("box", BOX_COLOUR), ("truth", TRUTH_COLOUR)] if answers and truths else []
    return _with_band(canvas, _clean(caption), key)


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
    result = Image.new("RGB", (width, canvas.height + height), _PAPER)
    result.paste(_OUTSIDE, (0, 0, width, canvas.height))
    result.paste(canvas, ((width - canvas.width) // 2, 0))
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


def _clean(caption: str) -> str:
    """One line of printable characters: control characters and lone surrogates would make the font code raise."""
    words = " ".join(caption[: 4 * _MAX_CHARACTERS].split())
    return "".join(filter(str.isprintable, words))[:_MAX_CHARACTERS].strip()


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
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
    if len(lines) <= _MAX_LINES:
        return lines
    last = lines[_MAX_LINES - 1]
    while last and font.getlength(last + " ...") > width:
        last = last[:-1]
    return [*lines[: _MAX_LINES - 1], last.rstrip() + " ..."]
