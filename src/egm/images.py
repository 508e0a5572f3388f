"""Pictures in: from a path, bytes or a PIL image to one upright RGB image, or one clear line saying why not.

Everything that can be refused from the header is refused before a pixel is decoded, and nothing is ever fetched.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import IO, Any, NoReturn, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from egm.errors import ImageError

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Image.Image
"""A picture as users hold it: a path, a PIL image, or the bytes of a file."""

MAX_PIXELS = 128_000_000
"""Largest width x height that is decoded; for TIFF Pillow's own limit holds where that is lower."""
MAX_BYTES = 256 * 1024 * 1024
"""Largest file that is opened."""
MAX_SCANNED = 20 * MAX_PIXELS
"""Most pixels times scans of a JPEG: a scan may take ten bytes of the file, and takes the time of the whole picture."""
MAX_READS = 500_000
"""Most parts, such as chunks of a PNG, that a file is read in."""
MIN_SIDE = 8
"""Shortest side in pixels: below it there is nothing to point at."""
MAX_ASPECT = 200
"""Largest ratio of the sides: the Qwen image processors refuse more."""

_Read = TypeVar("_Read")
_Opener: TypeAlias = Callable[[IO[bytes]], ImageFile.ImageFile]

# Leading bytes and who reads them. Plugins are called directly, not through Image.open: that one warns or raises above
# a limit which is global to the process and which EGM must neither change nor depend on. It also keeps out formats
# that run other programs (EPS) or that nobody has hardened.
_OPENERS: tuple[tuple[re.Pattern[bytes], _Opener], ...] = (
    (re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.jpeg_factory),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    (re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
)
_FORMATS = "JPEG, PNG, WebP, GIF, BMP or TIFF"

# What people pass by mistake, named so that they see at once what happened. The first match counts.
_CONVERT = f"convert it to {_FORMATS}"
_LOOKALIKES: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<svg", re.I), "an SVG drawing", "render it to PNG"),
    (re.compile(rb"(\xef\xbb\xbf)?\s*<\?xml", re.I), "an XML document", "download the picture again"),
    (re.compile(rb"(\xef\xbb\xbf)?\s*<[!a-z]", re.I), "an HTML page", "download the picture itself, not its web page"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer", "run `git lfs pull`"),
    (re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.DOTALL), "a HEIC file", _CONVERT),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "an AVIF file", _CONVERT),
    (re.compile(rb"%PDF"), "a PDF", "save the page as PNG"),
    (re.compile(rb"\s*[\[{]"), "JSON text", "download the picture again"),
)

_URL = re.compile(r"[a-z][a-z0-9+.-]+:/|(data|file|javascript|blob):", re.I)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_KEEP_SIDES = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM)


def load_image(source: ImageSource, *, root: Path | None = None) -> Image.Image:
    """Load a picture as upright RGB.

    The EXIF orientation is applied and all metadata dropped, so nothing downstream can rotate it again. Transparency is
    composited on white, as the Qwen utilities do. 16-bit grey keeps its high byte; 32-bit integer and float pictures
    have no fixed range, so their own minimum becomes 0 and their maximum 255. Colour profiles are not applied.

    Args:
        source: A path, the bytes of a file (JPEG, PNG, WebP, GIF, BMP or TIFF), or a PIL image. URLs are refused.
        root: If given, paths are taken relative to this folder and must, with all links resolved, lie inside it.

    Returns:
        A new RGB image that shares nothing with `source`.

    Raises:
        ImageError: If there is no such file, it is outside `root`, it is not a picture in one of these formats, it is
            damaged or animated, or it breaks a limit (`MAX_BYTES`, `MAX_PIXELS`, `MAX_SCANNED`, `MIN_SIDE`,
            `MAX_ASPECT`).

    Example:
        >>> from egm import example_picture
        >>> picture = load_image(example_picture())
        >>> picture.mode, picture.size
        ('RGB', (384, 224))
    """
    if isinstance(source, Image.Image):
        return _upright_rgb(source, "the given PIL image")
    if isinstance(source, bytes | bytearray | memoryview):
        _check_bytes(len(source), "the given byte string")
        return _decode(io.BytesIO(source), "the given byte string")
    if isinstance(source, str | os.PathLike):
        return _load_path(os.fsdecode(source), root, _decode)
    raise ImageError(f"an image must be a path, bytes or a PIL image, not {type(source).__name__}")


def read_picture_header(path: str | os.PathLike[str]) -> tuple[tuple[int, int], bool]:
    """Read the size of a picture without decoding it.

    Returns:
        Width and height when upright, and whether EXIF turns or mirrors it: what reads no EXIF sees it otherwise.

    Raises:
        ImageError: If it is no picture that `load_image` would begin to decode.
    """

    def read(stream: IO[bytes], where: str) -> tuple[tuple[int, int], bool]:
        image = _opened(stream, where)
        method = _TRANSPOSE.get(_orientation(image)) if image.format != "PNG" or _tells_more(stream) else None
        sides = image.size if method is None or method in _KEEP_SIDES else image.size[::-1]
        return sides, method is not None

    return _load_path(os.fsdecode(path), None, read)


def check_picture_size(said: tuple[int, int] | None, found: tuple[int, int]) -> None:
    """Hold the size that a row says, if it does, against the picture's own.

    They differ where a picture was scaled, where EXIF turns it and the row does not know, where sides are swapped, and
    where another folder has the same names. Boxes of the row are in other pixels then.

    Args:
        said: Width and height by the row.
        found: Width and height of the picture, upright.

    Raises:
        ImageError: If they differ.
    """
    if said is not None and tuple(said) != found:
        raise ImageError(
            f"the row says {said[0]} x {said[1]}, the picture is {found[0]} x {found[1]} when upright: give the "
            "picture that the row was written for, or mend the row"
        )


def picture_key(source: ImageSource) -> Hashable:
    """Return what tells a picture's source from others, so that what is about one picture loads it once.

    Paths go by their text, files in memory by their bytes, PIL images by identity: keep those as long as the key.
    """
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return bytes(source) if isinstance(source, bytes | bytearray | memoryview) else id(source)


def _load_path(text: str, root: Path | None, read: Callable[[IO[bytes], str], _Read]) -> _Read:
    where = _show(text)
    if is_url(text):
        raise ImageError(f"{where} is a URL, and nothing is fetched: download the picture and pass its path or bytes")
    try:
        path = Path(text)
        if root is not None:
            base = Path(root).resolve()
            path = (base / path).resolve()
            if not path.is_relative_to(base):
                raise ImageError(f"{where} leads outside {_show(str(base))}: keep pictures inside that folder")
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{where} is a folder: pass one picture in it")
        # A pipe or a device would block or never end.
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{where} is not a regular file: copy its content into one, or pass the bytes")
        _check_bytes(status.st_size, where)
        stream = path.open("rb")
    except FileNotFoundError:
        raise ImageError(f"there is no file {where}: check the path{_taken_from(text, root)}") from None
    # Links in a circle raise RuntimeError before Python 3.13; a NUL in the path raises ValueError.
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"cannot open {where}: {reason}: check the path and its permissions") from error
    with stream:
        return read(stream, where)


def is_url(name: str) -> bool:
    """Tell whether a name is an address, not a path: such are refused, wherever they stand, as nothing is fetched."""
    return _URL.match(name) is not None


def _taken_from(text: str, root: Path | None) -> str:
    """Say what a path is relative to; an absolute one is so to nothing, but often comes from a folder of pictures."""
    if Path(text).is_absolute():
        return ", and that the folder of pictures is whole"
    return f", which is taken from {'the current folder' if root is None else _show(str(root))}"


def _check_bytes(size: int, where: str) -> None:
    if size == 0:
        raise ImageError(f"{where}: empty (0 bytes): copy or download the picture again")
    if size > MAX_BYTES:
        raise ImageError(f"{where}: {size / 2**20:.0f} MB, over the limit of {MAX_BYTES // 2**20} MB: save it smaller")


def _decode(stream: IO[bytes], where: str) -> Image.Image:
    return _upright_rgb(_opened(stream, where), where)


class _CountedReads:
    """A stream that can be read from so many times: decoders take part by part, as small as the file makes them."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._left = stream, MAX_READS

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ImageError("it is made of too many parts")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _opened(stream: IO[bytes], where: str) -> ImageFile.ImageFile:
    """Read the header of a picture, and refuse what can be refused by it."""
    try:
        head = stream.read(512)
        stream.seek(0)
    except OSError as error:
        raise ImageError(f"cannot read {where}: {error.strerror}: copy the file to a sound disk") from error
    opener = next((opener for pattern, opener in _OPENERS if pattern.match(head)), None)
    if opener is None:
        for pattern, what, advice in _LOOKALIKES:
            if pattern.match(head):
                raise ImageError(f"{where} is {what}, not a picture: {advice}")
        raise ImageError(f"{where} is not a picture in a format that EGM reads: {_CONVERT}")
    try:
        image = opener(cast("IO[bytes]", _CountedReads(stream)))
    except Image.DecompressionBombError as error:
        raise ImageError(f"{where}: over the limit of {MAX_PIXELS // 10**6} megapixels: scale it down") from error
    except Exception as error:  # decoders raise anything from SyntaxError to struct.error on damaged headers
        _damaged(where, error)
    _check_size(image, where)
    if opener is JpegImagePlugin.jpeg_factory:
        _check_scans(image, stream, where)
    return image


def _check_scans(image: ImageFile.ImageFile, stream: IO[bytes], where: str) -> None:
    """Refuse a JPEG that would be gone through hundreds of times; progressive ones have some ten scans."""
    place = stream.tell()
    stream.seek(0)
    scans = stream.read().count(b"\xff\xda")  # within the data of a scan, FF is followed by nothing of the kind
    stream.seek(place)
    if scans * image.width * image.height > MAX_SCANNED:
        raise ImageError(
            f"{where}: {image.width} x {image.height} in {scans:,} scans takes too long to decode: save it anew"
        )


def _upright_rgb(image: Image.Image, where: str) -> Image.Image:
    _check_size(image, where)
    try:
        # The second picture of an MPO is a depth or gain map beside an ordinary photo, not a next frame.
        several = image.format != "MPO" and getattr(image, "is_animated", False)
    except Exception as error:
        _damaged(where, error)
    if several:
        raise ImageError(
            f"{where} holds several frames or pages: save one and pass that, "
            "such as PIL.Image.open(path).convert('RGB').save('frame.png')"
        )
    try:
        # Pixels first: Pillow turns TIFF upright itself while loading, and drops the orientation then.
        image.load()
        rgb = _to_rgb(image)
        method = _TRANSPOSE.get(_orientation(image))
    except Exception as error:
        _damaged(where, error)
    if method is not None:
        rgb = rgb.transpose(method)
    rgb.info = {}
    return rgb


def _check_size(image: Image.Image, where: str) -> None:
    width, height = image.size
    limit = MAX_PIXELS
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow holds TIFF against its own limit once more while decoding.
        limit = min(limit, Image.MAX_IMAGE_PIXELS or limit)
    if width * height > limit:
        raise ImageError(
            f"{where}: {width} x {height} is {width * height / 1e6:.0f} megapixels, "
            f"over the limit of {limit // 10**6}: scale it down"
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{where}: {width} x {height} is too small: each side needs at least {MIN_SIDE} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{where}: {width} x {height} is longer than {MAX_ASPECT}:1: cut it into parts")


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode; always a new image."""
    # Older Pillow opens 16-bit grey PNG as 32-bit integers.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        high = np.right_shift(np.asarray(image), 8).astype(np.uint8)
        return Image.fromarray(high).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretch(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, (255, 255, 255))
        rgb.paste(rgba, mask=rgba.getchannel("A"))
        return rgb
    return image.convert("RGB")


def _stretch(values: NDArray[Any]) -> NDArray[np.uint8]:
    floats = values.astype(np.float64)
    finite = floats[np.isfinite(floats)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    floats = np.nan_to_num(floats, nan=low, posinf=high, neginf=low)
    return np.rint((floats - low) * (255 / ((high - low) or 1.0))).astype(np.uint8)


def _tells_more(stream: IO[bytes]) -> bool:
    """Whether a PNG may hold an orientation, by the names of its chunks: Pillow decodes all of it to say that."""
    try:
        before = stream.tell()
        stream.seek(8)
        for _ in range(MAX_READS):
            length, name = struct.unpack(">I4s", stream.read(8))
            if name in (b"eXIf", b"iTXt", b"tEXt", b"zTXt", b"IEND"):
                break
            stream.seek(length + 4, os.SEEK_CUR)
        stream.seek(before)
    except (OSError, ValueError, struct.error):
        return True
    return bool(name != b"IEND")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF is common in good photos; without a readable orientation it stands as stored
        return 1


def _damaged(where: str, error: Exception) -> NoReturn:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    raise ImageError(f"{where} is damaged or cut off ({reason}): copy or download it again") from error


def _show(path: str) -> str:
    """Quote a path for a message: one line, and short even if it holds a megabyte of base64."""
    return repr(path if len(path) <= 160 else f"{path[:80]}…{path[-60:]}")
