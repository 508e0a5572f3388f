"""Fields of a row, checked: words, sizes, and boxes in the notations that files have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from egm.boxes import Box
from egm.errors import BoxError, DataError

Row: TypeAlias = dict[str, Any]

BoxScale: TypeAlias = Literal["pixels", "0-1000", "pixels or 0-1000"]
"""What the numbers of a format's boxes mean: pixels of the upright image, thousandths of its sides, or either, as the
row says."""


MAX_SIDE = 1_000_000
"""Longest side that a row may say, in pixels; no picture that is read comes near it."""
_FARTHEST = 1e9  # a coordinate that is larger is no number of pixels, in any notation


PICTURE: Final = "_picture"
"""Key under which a row is told what its picture is called, where that lies in the file and nothing there names it."""


def text(row: Mapping[str, Any], key: str) -> str:
    """A field that must hold words."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"has no {key}")
    return value


TWICE: Final = "twice"
"""What `by_id` holds in the place of an object whose id another one has as well."""


def by_id(items: Any, *keys: str) -> dict[Any, Any]:
    """Index objects by their id; where two have one id and differ in one of `keys`, it stands for `TWICE`.

    Raises:
        TypeError: If they are no list of objects.
        KeyError: If one has no id, or lacks the first of `keys`.
    """
    found: dict[Any, Any] = {}
    for item in items:
        key, _ = item["id"], item[keys[0]]
        before = found.setdefault(key, item)
        if before is not item and (before is TWICE or any(before.get(name) != item.get(name) for name in keys)):
            found[key] = TWICE
    return found


def identity(row: Mapping[str, Any], key: str, otherwise: str) -> str:
    """What a row calls itself, or what to call it if it does not say.

    Raises:
        DataError: If it is neither words nor a whole number.
    """
    value = row.get(key)
    if value is None:
        return otherwise
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{key} {short(value)} is neither words nor a whole number")
    return str(value)


def flag(row: Mapping[str, Any], key: str) -> bool:
    """A field that says yes or no, and no where it is left out.

    Raises:
        DataError: If it is neither true nor false: the word "false" would count as true.
    """
    value = row.get(key)
    if value is None or (isinstance(value, bool | int | float) and value in (0, 1)):
        return bool(value)
    raise DataError(f"{key} {short(value)} is neither true nor false")


def name_of_picture(value: Any) -> Any:
    """The picture of a field that may list it; what it is has yet to be checked.

    Raises:
        DataError: If it lists several: which of them the box is on is not said.
    """
    if not isinstance(value, list):
        return value
    if len(value) > 1:
        raise DataError(f"holds {len(value)} pictures: one is needed, as the box does not say which it is on")
    return value[0] if value else None


def refuse_several_pictures(*questions: Any) -> None:
    """Refuse a row whose questions speak of more than one picture, by their `<image>`.

    Raises:
        DataError: If they do.
    """
    if (count := sum(question.count("<image>") for question in questions if isinstance(question, str))) > 1:
        raise DataError(f"asks about {count} pictures, by its <image>: one is needed")


def pixels(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height of a row in whole pixels, or None if it gives neither; 640.0 is as whole as 640.

    Raises:
        DataError: If they are anything else.
    """
    width, height = row.get("width"), row.get("height")
    if width is None and height is None:
        return None
    sides = [_whole(side) for side in (width, height)]
    if sides[0] is None or sides[1] is None:
        raise DataError(f"width {short(width)} and height {short(height)} are not whole numbers of pixels")
    return sides[0], sides[1]


def xyxy(numbers: Any, key: str = "bbox") -> Box:
    """A box given as `x1, y1, x2, y2` in pixels."""
    try:
        x1, y1, x2, y2 = _four(numbers)
        return Box(x1, y1, x2, y2)
    except (TypeError, ValueError, BoxError) as error:
        raise DataError(f"{key} {short(numbers)} is not x1, y1, x2, y2 in pixels ({error})") from None


def xywh(numbers: Any, key: str = "bbox") -> Box:
    """A box given as COCO's `x, y, width, height` in pixels."""
    try:
        return Box.from_xywh(_four(numbers))
    except (TypeError, ValueError, BoxError) as error:
        raise DataError(f"{key} {short(numbers)} is not x, y, width, height in pixels ({error})") from None


def scaled_1000(numbers: Any, size: tuple[int, int] | None, key: str) -> Box:
    """A box given on the 0-1000 scale, in pixels of an image of `size` (width, height)."""
    if size is None:
        raise DataError(f"{key} is on the 0-1000 scale, which needs width and height")
    try:
        return Box.from_1000(_four(numbers), size)
    except (TypeError, ValueError, BoxError) as error:
        raise DataError(f"{key} {short(numbers)} is not x1, y1, x2, y2 on the 0-1000 scale ({error})") from None


def is_coordinate(value: Any) -> bool:
    """Tell whether a value is a finite number that may be a coordinate, on whatever scale; true and false are not."""
    if type(value) is float or type(value) is int:  # as nearly all are
        return -_FARTHEST <= value <= _FARTHEST
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _FARTHEST


def _four(numbers: Any) -> tuple[float, float, float, float]:
    if not isinstance(numbers, list | tuple):
        raise TypeError("not a list")
    if len(numbers) != 4:
        raise ValueError(f"{len(numbers)} numbers")
    for value in numbers:
        if not is_coordinate(value):
            raise TypeError(f"{short(value)} is not a number of pixels or thousandths")
    a, b, c, d = numbers
    return a, b, c, d


def _whole(value: Any) -> int | None:
    """A side in whole pixels, or None if it is none."""
    if type(value) is int:  # as nearly all are
        return value if 0 < value <= MAX_SIDE else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_SIDE or value % 1:
        return None
    return int(value)


def short(value: Any) -> str:
    """Show a value in a message: one line, whatever it is."""
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, lists in lists without end
        return f"a {type(value).__name__}"
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
