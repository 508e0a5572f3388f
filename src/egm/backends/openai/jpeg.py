"""JPEG files without what is not the picture: no EXIF, no comments, nothing after the end. Pixels stay bit for bit."""

from __future__ import annotations

from typing import Final

_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_KEPT: Final = frozenset((0xE0, 0xEE))
"""Application segments that say how pixels are meant: JFIF, and Adobe's colour transform."""
_DROPPED: Final = frozenset((*range(0xE0, 0xF0), 0xFE))
_ALONE: Final = frozenset((0x01, *range(0xD0, 0xD8)))


def bare_jpeg(file: bytes) -> bytes | None:
    """Copy the segments of a JPEG that its pixels need, up to its end.

    Returns:
        The file, or None if it is not made as a JPEG is.
    """
    if file[:2] != bytes((0xFF, _START)):
        return None
    kept, place = [file[:2]], 2
    while place + 2 <= len(file):
        if file[place] != 0xFF:
            return None
        marker = file[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        if marker == _END:
            return b"".join([*kept, file[place : place + 2]])
        if marker in _ALONE:
            kept.append(file[place : place + 2])
            place += 2
            continue
        end = place + 2 + int.from_bytes(file[place + 2 : place + 4], "big")
        if end < place + 4 or end > len(file):
            return None
        if marker == _SCAN:
            end = _scan_end(file, end)
        if marker not in _DROPPED or (marker in _KEPT and _says_how(file[place + 4 : place + 9], marker)):
            kept.append(file[place:end])
        place = end
    return None


def _says_how(name: bytes, marker: int) -> bool:
    return name in ((b"JFIF\0",) if marker == 0xE0 else (b"Adobe",))


def _scan_end(file: bytes, place: int) -> int:
    """Find the marker that ends entropy-coded data: neither a stuffed byte nor a restart."""
    while (place := file.find(b"\xff", place)) >= 0:
        after = file[place + 1 : place + 2]
        if after and after not in (b"\0", b"\xff") and not 0xD0 <= after[0] <= 0xD7:
            return place
        place += 1 if after == b"\xff" else 2
    return len(file)
