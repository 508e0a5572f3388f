"""File names of COCO's pictures, and of the referents in them."""

from __future__ import annotations

import re
from pathlib import PurePath

_NUMBER = re.compile(r"(?<!\d)(\d{12})(?!\d)")
_REF = re.compile(r"(COCO_(?:train|val)2014_(\d{12}))_\d+")


def coco_number(name: str) -> str | None:
    """Return the twelve-digit COCO number that the last part of a path holds, or None: copies keep it in their names.

    Example:
        >>> coco_number("train2014/COCO_train2014_000000581857.jpg")
        '000000581857'
    """
    found = _NUMBER.search(PurePath(name).name)
    return found[1] if found else None


def split_ref(ref: str) -> tuple[str, int] | None:
    """Return the picture of a referent and its COCO number, or None if it is not named as referents are.

    Example:
        >>> split_ref("COCO_train2014_000000581857_16")
        ('COCO_train2014_000000581857.jpg', 581857)
    """
    parts = _REF.fullmatch(ref)
    return None if parts is None else (f"{parts[1]}.jpg", int(parts[2]))


def image_of_ref(file_name: str) -> str:
    """Return the picture of a referent's file name, which has the referent's number behind it; other names stay.

    Example:
        >>> image_of_ref("COCO_train2014_000000581857_16.jpg")
        'COCO_train2014_000000581857.jpg'
    """
    parts = split_ref(file_name.removesuffix(".jpg"))
    return file_name if parts is None else parts[0]
