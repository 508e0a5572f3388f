"""Files that pictures of answers are written to."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from egm.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def check_picture_path(path: Path) -> None:
    """Refuse a path that no picture can be written to, before any work is done.

    Raises:
        ImageError: If its suffix is not one of `FORMATS`, or it is a folder.
    """
    if path.suffix.lower() not in FORMATS:
        raise ImageError(f"cannot draw to {str(path)!r}: end its name in {', '.join(FORMATS)}")
    if path.is_dir():
        raise ImageError(f"cannot draw to {str(path)!r}, which is a folder: name a file in it")


def write_picture(path: Path, picture: Image) -> None:
    """Write a picture in full or not at all, in the format of its suffix, and make its folder if need be."""
    from egm.files import write_bytes

    stream = io.BytesIO()
    picture.save(stream, FORMATS[path.suffix.lower()])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, stream.getvalue())
