"""JPEG files without what is not the picture: no EXIF, no comments, no thumbnail, nothing after the end.

Pixels stay bit for bit.
"""

from __future__ import annotations

from typing import Final

_START, _END, _SCAN, _RESTART_INTERVAL, _JFIF, _ADOBE = 0xD8, 0xD9, 0xDA, 0xDD, 0xE0, 0xEE
_FRAMES: Final = frozenset((0xC0, 0xC1, 0xC2))
"""Baseline, extended and progressive, with Huffman codes: what any decoder knows."""
_TABLES: Final = frozenset((0xC4, 0xDB))
_DROPPED: Final = frozenset((*range(0xE0, 0xF0), 0xFE))
_ALONE: Final = frozenset((0x01, *range(0xD0, 0xD8)))


def bare_jpeg(file: bytes) -> bytes | None:
    """Copy the segments of a JPEG that its pixels need, up to its end.

    Returns:
        The file, or None if it is not made as a JPEG is, or holds what a decoder passes over amid the pixels.
    """
    if file[:2] != bytes((0xFF, _START)):
        return None
    kept, place, frame, interval = [file[:2]], 2, b"", 0
    while place + 2 <= len(file):
        if file[place] != 0xFF:
            return None
        marker = file[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        if marker == _END:
            return b"".join([*kept, file[place : place + 2]])
        if marker in _ALONE:  # a restart outside of a scan restarts nothing
            place += 2
            continue
        end = place + 2 + int.from_bytes(file[place + 2 : place + 4], "big")
        if end < place + 4 or end > len(file):
            return None
        content = file[place + 4 : end]
        if marker in _DROPPED:
            kept.append(_says_how(content, marker))
        elif marker == _SCAN:
            scan = _scan_end(file, end, _restarts(frame, content, interval))
            if scan is None:
                return None
            end = scan
            kept.append(file[place:end])
        elif marker in _FRAMES or marker in _TABLES or marker == _RESTART_INTERVAL:
            frame = content if marker in _FRAMES else frame
            interval = int.from_bytes(content[:2], "big") if marker == _RESTART_INTERVAL else interval
            kept.append(file[place:end])
        else:
            return None
        place = end
    return None


def _says_how(content: bytes, marker: int) -> bytes:
    """Write what an application segment says of how pixels are meant: JFIF, without a thumbnail, and Adobe's transform.

    One that is too short is passed over by decoders too.
    """
    if marker == _JFIF and content[:5] == b"JFIF\0" and len(content) >= 14:
        return bytes((0xFF, marker, 0, 16)) + content[:12] + bytes(2)
    if marker == _ADOBE and content[:5] == b"Adobe" and len(content) >= 12:
        return bytes((0xFF, marker, 0, 14)) + content[:12]
    return b""


def _restarts(frame: bytes, scan: bytes, interval: int) -> int:
    """Count the restart markers of a scan (ITU-T T.81, A.2 and E.1.4), by its frame and its header."""
    parts = {frame[i]: (frame[i + 1] >> 4, frame[i + 1] & 15) for i in range(6, len(frame) - 2, 3)}
    shown = [parts.get(scan[i], (1, 1)) for i in range(1, 2 * (scan[0] if scan else 0), 2) if i < len(scan)]
    if not interval or not parts or not shown:
        return 0
    high, wide = (int.from_bytes(frame[i : i + 2], "big") for i in (1, 3))
    across, down = (8 * max(part[axis] for part in parts.values()) for axis in (0, 1))
    if len(shown) == 1:  # then units are that component's blocks, without those that only fill others' up
        wide, high = wide * shown[0][0], high * shown[0][1]
    units = -(-wide // max(across, 8)) * -(-high // max(down, 8))
    return (units - 1) // interval if units else 0


def _scan_end(file: bytes, place: int, restarts: int) -> int | None:
    """Find the marker that ends entropy-coded data: neither a stuffed byte nor a restart.

    Returns:
        Its place; None if there is a restart out of order or beyond their number: what follows it may be anything.
    """
    met = 0
    while (place := file.find(b"\xff", place)) >= 0:
        after = file[place + 1 : place + 2]
        if after and after not in (b"\0", b"\xff"):
            if not 0xD0 <= after[0] <= 0xD7:
                return place
            if met >= restarts or after[0] != 0xD0 + met % 8:
                return None
            met += 1
        place += 1 if after == b"\xff" else 2
    return len(file)
