"""Pictures that would take minutes: refused before they do."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from egm import images
from egm.errors import ImageError
from egm.images import MAX_SCANNED, load_image


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes) -> bytes:
    return struct.pack(">I", 0) + kind + struct.pack(">I", zlib.crc32(kind))


def before_pixels(png: bytes, parts: bytes) -> bytes:
    return png[:33] + parts + png[33:]


PICTURE = Image.new("RGB", (64, 64), "teal")
PNG, JPEG, GIF = (encode(PICTURE, kind) for kind in ("PNG", "JPEG", "GIF"))


@pytest.mark.parametrize(
    "content",
    [
        before_pixels(PNG, chunk(b"abcd") * 2000),
        PNG[:-12] + chunk(b"abcd") * 2000 + PNG[-12:],
        JPEG[:2] + b"\xff\xe1\x00\x08Exif\0\0" * 2000 + JPEG[2:],
        GIF[:-1].replace(b",", b"!\xfe" + b"\1a" * 2000 + b"\0,", 1) + GIF[-1:],
    ],
    ids=["chunks before", "chunks after", "segments", "comments"],
)
def test_files_in_too_many_parts_are_refused(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    assert load_image(content).size == (64, 64)
    monkeypatch.setattr(images, "MAX_READS", 1000)
    with pytest.raises(ImageError, match=r"is damaged or cut off \(it is made of too many parts"):
        load_image(content)
    for sound in (PNG, JPEG, GIF):
        assert load_image(sound).size == (64, 64)


def test_a_jpeg_of_too_many_scans_is_refused_before_it_is_decoded() -> None:
    content = encode(Image.new("RGB", (1000, 1000), "teal"), "JPEG", progressive=True)
    assert load_image(content).size == (1000, 1000)
    last = content[content.rindex(b"\xff\xda") : -2]
    hostile = content[:-2] + last * (MAX_SCANNED // 10**6) + content[-2:]
    assert len(hostile) < 200_000
    with pytest.raises(ImageError, match=r"1000 x 1000 in 2,5\d\d scans takes too long to decode"):
        load_image(hostile)
