from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from egm.errors import ImageError
from egm.images import MAX_PIXELS, load_image

RED, BLUE = (255, 0, 0), (0, 0, 255)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def halves(size: tuple[int, int] = (32, 16)) -> Image.Image:
    """Red left half, blue right half."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def png_header(width: int, height: int, rest: bytes = b"") -> bytes:
    """A PNG that declares a size, followed by `rest` as compressed pixel data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rest) + chunk(b"IEND", b"")


def refusal(source: object, **options: object) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


# ---- what is accepted


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("form", [lambda path: path, str, lambda path: path.read_bytes()])
def test_reads_every_format_from_path_string_and_bytes(
    tmp_path: Path, kind: str, form: Callable[[Path], object]
) -> None:
    path = tmp_path / "picture"  # no suffix: the content decides
    path.write_bytes(encode(halves(), kind))

    image = load_image(form(path))  # type: ignore[arg-type]

    assert (image.mode, image.size) == ("RGB", (32, 16))
    np.testing.assert_allclose(image.getpixel((4, 8)), RED, atol=20)
    np.testing.assert_allclose(image.getpixel((28, 8)), BLUE, atol=20)


def test_suffix_does_not_decide(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encode(halves(), "PNG"))
    assert load_image(path).getpixel((0, 0)) == RED


def test_pil_image_is_copied_and_left_alone() -> None:
    original = halves()
    loaded = load_image(original)
    loaded.putpixel((0, 0), (1, 2, 3))
    assert original.getpixel((0, 0)) == RED


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(orientation: int, kind: str) -> None:
    upright = Image.new("RGB", (24, 16), "white")
    upright.paste(RED, (0, 0, 12, 8))
    upright.paste(BLUE, (12, 0, 24, 8))
    # How a camera that is held this way stores the picture: the inverse of what must be applied to look at it.
    store = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if store is None else upright.transpose(store)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(stored, kind, exif=exif, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))

    once = load_image(data)
    for image in (once, load_image(Image.open(io.BytesIO(data))), load_image(once)):
        assert image.size == (24, 16)
        np.testing.assert_allclose(image.getpixel((3, 3)), RED, atol=60)
        np.testing.assert_allclose(image.getpixel((20, 3)), BLUE, atol=60)
        np.testing.assert_allclose(image.getpixel((12, 13)), (255, 255, 255), atol=60)
        assert not image.getexif()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_ignored() -> None:
    data = encode(halves(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage", quality=95)
    assert load_image(data).size == (32, 16)


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    expected = (values // 256).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        image = load_image(encode(Image.fromarray(values), kind))
        np.testing.assert_array_equal(np.asarray(image), np.repeat(expected[..., None], 3, axis=2))


def test_big_endian_16_bit_grey() -> None:
    image = Image.frombytes("I;16B", (8, 8), struct.pack(">H", 0x80FF) * 64)
    assert load_image(image).getpixel((3, 3)) == (128, 128, 128)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pictures_without_a_fixed_range_are_stretched(mode: str) -> None:
    values = np.full((8, 8), 500.0, np.float32)
    values[0, 0], values[0, 1] = -500.0, 1500.0
    image = load_image(Image.fromarray(values if mode == "F" else values.astype(np.int32)))
    assert [image.getpixel(xy) for xy in ((0, 0), (1, 0), (5, 5))] == [(0,) * 3, (255,) * 3, (128,) * 3]


def test_float_with_nan_infinity_and_no_range() -> None:
    values = np.zeros((8, 8), np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    assert np.asarray(load_image(Image.fromarray(values))).max() == 0


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (255, 128, 128), (255, 255, 255)),
        ("HSV", (0, 255, 255), (255, 0, 0)),
        ("LA", (0, 255), (0, 0, 0)),
        ("LA", (0, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
    ],
)
def test_every_mode_becomes_rgb_with_transparency_on_white(mode: str, colour: object, expected: object) -> None:
    image = load_image(Image.new(mode, (8, 8), colour))  # type: ignore[arg-type]
    assert image.mode == "RGB"
    assert image.getpixel((4, 4)) == expected


def test_palette_with_a_transparent_colour() -> None:
    image = Image.new("P", (16, 8), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (8, 0, 16, 8))
    loaded = load_image(encode(image, "PNG", transparency=1))
    assert (loaded.getpixel((2, 2)), loaded.getpixel((12, 2))) == (RED, (255, 255, 255))


def test_cmyk_jpeg() -> None:
    image = load_image(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    np.testing.assert_allclose(image.getpixel((8, 8)), RED, atol=10)


def test_mpo_gives_the_photo() -> None:
    data = encode(halves(), "MPO", save_all=True, append_images=[Image.new("RGB", (32, 16), "green")], quality=95)
    np.testing.assert_allclose(load_image(data).getpixel((4, 8)), RED, atol=20)


def test_20_to_1_is_accepted_and_so_is_200_to_1() -> None:
    assert load_image(Image.new("RGB", (320, 16))).size == (320, 16)
    assert load_image(Image.new("RGB", (8, 1600))).size == (8, 1600)


# ---- what is refused


@pytest.mark.parametrize("as_bytes", [True, False])
def test_bomb_is_refused_from_the_header(tmp_path: Path, as_bytes: bool) -> None:
    # 400 megapixels of zeros in 49 kB.
    data = png_header(20_000, 20_000, zlib.compress(bytes(2501 * 20_000), 9))
    assert len(data) < 60_000
    path = tmp_path / "bomb.png"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refusal(data if as_bytes else path)
    assert "20000 x 20000 is 400 megapixels" in message


def test_bomb_is_refused_without_decoding() -> None:
    # There are no pixels to decode here: had decoding been tried, the message would say damaged.
    assert "megapixels" in refusal(png_header(65_000, 65_000))
    assert "megapixels" in refusal(png_header(MAX_PIXELS // 1000 + 1, 1000))


def test_large_picture_under_the_limit_gives_no_warning_and_changes_no_global() -> None:
    # Above Pillow's own warning limit, below ours.
    width, height = 12_000, 10_000
    before, data = Image.MAX_IMAGE_PIXELS, png_header(width, height, zlib.compress(bytes((width // 8 + 1) * height), 9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(data).size == (width, height)
    assert before == Image.MAX_IMAGE_PIXELS


def test_tiff_keeps_to_the_limit_of_pillow_which_would_warn_while_decoding() -> None:
    data = encode(Image.new("1", (12_000, 8_000)), "TIFF", compression="group4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "over the limit of 89" in refusal(data)


def test_webp_bomb() -> None:
    header = b"\x2f" + struct.pack("<I", (16383 - 1) | (16383 - 1) << 14)
    data = b"VP8L" + struct.pack("<I", len(header) + 1) + header + b"\0"
    assert "limit" in refusal(b"RIFF" + struct.pack("<I", len(data) + 4) + b"WEBP" + data)


def test_missing() -> None:
    assert "there is no file 'no/such/cat.jpg'" in refusal("no/such/cat.jpg")


def test_folder(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    assert "is a folder" in refusal("")


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.jpg"
    path.touch()
    assert "empty.jpg" in refusal(path)
    assert "empty (0 bytes)" in refusal(path)
    assert "empty (0 bytes)" in refusal(b"")


def test_pipe_does_not_block(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")


def test_file_over_the_size_limit_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "huge.bmp"
    with path.open("wb") as stream:
        stream.truncate(300 * 2**20)  # sparse: takes no space
    assert "300 MB, over the limit of 256 MB" in refusal(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encode(halves(), "PNG"))
    path.chmod(0)
    assert "cannot open" in refusal(path)


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert "cannot open" in refusal(tmp_path / "a.png")
    assert "a.png" in refusal("a.png", root=tmp_path)


@pytest.mark.parametrize("path", ["a\0b.png", "x" * 5000])
def test_impossible_names(path: str) -> None:
    assert "cannot open" in refusal(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_cut_off(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    assert "damaged or cut off" in refusal(data[: max(20, int(len(data) * share))])


def test_lazily_opened_pil_image_that_is_cut_off() -> None:
    data = encode(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), "PNG")
    assert "damaged or cut off" in refusal(Image.open(io.BytesIO(data[: len(data) // 2])))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
        (b"\xef\xbb\xbf\n  <HTML>", "an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b'{"error": "not found"}', "JSON text"),
        (b"%PDF-1.7", "a PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC file"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "an AVIF file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture in a format"),
        (b"just words", "not a picture in a format"),
    ],
)
def test_what_is_not_a_picture_is_named(tmp_path: Path, data: bytes, name: str) -> None:
    path = tmp_path / "cat.jpg"
    path.write_bytes(data)
    for source in (path, data):
        assert name in refusal(source)
    assert "cat.jpg" in refusal(path)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused_with_a_way_out(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    for source in (data, Image.open(io.BytesIO(data))):
        message = refusal(source)
        assert "several frames" in message
        assert "frame.png" in message


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (100, 7)])
def test_too_small(size: tuple[int, int]) -> None:
    assert f"{size[0]} x {size[1]} is too small" in refusal(encode(Image.new("RGB", size), "PNG"))


def test_too_long() -> None:
    assert "200:1" in refusal(Image.new("RGB", (8, 1601)))


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "HTTPS://example.org/cat.jpg",
        "file:///etc/passwd",
        "data:image/png;base64," + "A" * 1_000_000,
        "s3://bucket/cat.jpg",
        Path("http://example.org/cat.jpg"),
    ],
)
def test_urls_are_never_fetched(url: str | Path) -> None:
    assert "is a URL" in refusal(url)


@pytest.mark.parametrize("source", [None, 5, ["a.png"], np.zeros((8, 8, 3), np.uint8)])
def test_other_types(source: object) -> None:
    assert type(source).__name__ in refusal(source)


def test_threads_do_not_disturb_each_other() -> None:
    good, bomb = encode(halves(), "PNG"), png_header(20_000, 20_000)
    outcomes: list[str] = []

    def work() -> None:
        for _ in range(20):
            outcomes.append(load_image(good).mode)
            outcomes.append(refusal(bomb)[:20])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 160
    assert set(outcomes) == {"RGB", "the given byte strin"}
