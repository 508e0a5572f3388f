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


KINDS = {
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


@pytest.mark.parametrize("cut", [2, 3, 10, 200, -3])
def test_a_file_that_is_cut_off_is_not_sent_as_it_is(cut: int) -> None:
    assert bare_jpeg(jpeg()[:cut]) is None


@pytest.mark.parametrize("file", [b"", b"\x89PNG", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x00", b"\xff\xd8abcdef"])
def test_what_is_no_jpeg(file: bytes) -> None:
    assert bare_jpeg(file) is None
