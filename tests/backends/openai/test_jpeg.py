"""JPEG files on their way to a server: all that is not the picture goes, and every pixel stays."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from egm.backends.openai.jpeg import bare_jpeg
from egm.backends.openai.messages import plain_jpeg

NOISE = Image.effect_noise((83, 61), 80).convert("RGB")


def jpeg(**options: Any) -> bytes:
    stream = io.BytesIO()
    NOISE.save(stream, "JPEG", **options)
    return stream.getvalue()


def private() -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "SECRET maker", "SECRET model"
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 30.0)
    return jpeg(exif=exif, comment=b"SECRET comment", icc_profile=b"SECRET profile" * 20) + b"SECRET after the end"


def grown(file: bytes, marker: int, more: bytes) -> bytes:
    """A segment with more bytes at its end."""
    place = file.index(bytes((0xFF, marker)))
    end = place + 2 + int.from_bytes(file[place + 2 : place + 4], "big")
    content = file[place + 4 : end] + more
    return file[:place] + segment(marker, content) + file[end:]


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def with_thumbnail() -> bytes:
    file = grown(jpeg(), 0xE0, b"SECRET" * 2)  # 2 x 2 pixels
    return file[:18] + bytes((2, 2)) + file[20:]


def after_start(more: bytes) -> bytes:
    return jpeg()[:2] + more + jpeg()[2:]


ADOBE = segment(0xEE, b"Adobe" + bytes((0, 100, 0, 0, 0, 0, 1)) + b"SECRET")
ADOBE_RGB = segment(0xEE, b"Adobe" + bytes((0, 100, 0, 0, 0, 0, 0)) + b"SECRET")
KINDS = {
    "JFIF with a thumbnail": with_thumbnail(),
    "JFIF with more": grown(jpeg(), 0xE0, b"SECRET"),
    "JFIF too short": after_start(segment(0xE0, b"JFIF\0SECRET")),
    "JFIF of another kind": after_start(segment(0xE0, b"JFXX\0SECRET")),
    "Adobe with more": after_start(ADOBE),
    "Adobe with more, as RGB": jpeg()[:2] + ADOBE_RGB + jpeg()[20:],
    "Adobe too short": after_start(segment(0xEE, b"AdobeSECRET"[:9])),
    "restarts outside of a scan": after_start(bytes((0xFF, 0xD0, 0xFF, 0xD3))),
    "restarts, progressive": jpeg(restart_marker_blocks=3, progressive=True),
    "restarts, unequal components": jpeg(restart_marker_blocks=1, subsampling=2, progressive=True),
    "restarts of equal components": jpeg(restart_marker_rows=1, subsampling=0),
    "plain": jpeg(),
    "with all that is private": private(),
    "progressive": jpeg(progressive=True),
    "progressive with more after": jpeg(progressive=True, comment=b"SECRET") + b"SECRET",
    "restarts": jpeg(restart_marker_blocks=3),
    "best": jpeg(quality=100, subsampling=0),
}


@pytest.mark.parametrize("file", KINDS.values(), ids=KINDS)
def test_pixels_stay_and_nothing_else_does(file: bytes) -> None:
    bare = plain_jpeg(file, NOISE)
    assert bare is not None
    assert b"SECRET" not in bare
    before, after = Image.open(io.BytesIO(file)), Image.open(io.BytesIO(bare))
    assert not after.getexif()
    assert np.array_equal(np.asarray(before), np.asarray(after))
    assert before.quantization == after.quantization  # type: ignore[attr-defined]
    assert bare_jpeg(bare) == bare


def before_end(file: bytes, more: bytes) -> bytes:
    return file[:-2] + more + file[-2:]


STRAY = {
    "no restarts": before_end(jpeg(), b"\xff\xd0SECRET"),
    "one restart more": before_end(jpeg(restart_marker_rows=1), b"\xff\xd3SECRET"),
    "out of order": before_end(jpeg(restart_marker_rows=1), b"\xff\xd7SECRET"),
    "in a progressive scan": before_end(jpeg(progressive=True), b"\xff\xd0SECRET"),
    "a segment after the pixels": before_end(jpeg(), segment(0xDC, b"SECRET")),
    "an unknown segment": after_start(segment(0x02, b"SECRET")),
}


@pytest.mark.parametrize("file", STRAY.values(), ids=STRAY)
def test_a_file_with_more_amid_the_pixels_is_not_sent_as_it_is(file: bytes) -> None:
    assert b"SECRET" in file
    assert bare_jpeg(file) is None


def test_all_restarts_are_expected() -> None:
    """Those of every size and sampling are as many as the encoder makes, so that one more is seen."""
    for size in [(1, 1), (16, 16), (17, 33), (83, 61)]:
        for options in [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}]:
            stream = io.BytesIO()
            NOISE.resize(size).save(stream, "JPEG", restart_marker_blocks=1, **options)
            bare = bare_jpeg(stream.getvalue())
            assert bare is not None
            if "progressive" not in options:
                met = sum(bare.count(bytes((0xFF, 0xD0 + n))) for n in range(8))
                assert bare_jpeg(before_end(bare, bytes((0xFF, 0xD0 + met % 8)))) is None


@pytest.mark.parametrize("cut", [2, 3, 10, 200, -3])
def test_a_file_that_is_cut_off_is_not_sent_as_it_is(cut: int) -> None:
    assert bare_jpeg(jpeg()[:cut]) is None


@pytest.mark.parametrize("file", [b"", b"\x89PNG", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x00", b"\xff\xd8abcdef"])
def test_what_is_no_jpeg(file: bytes) -> None:
    assert bare_jpeg(file) is None
