"""What a user can get wrong: exit code 2, one line on standard error saying what to do, nothing on standard output."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from .conftest import Egm, Outcome


def check(outcome: Outcome, *says: str) -> None:
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert len(outcome.err) < 500
    for words in says:
        assert words in outcome.err


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def header(width: int, height: int) -> bytes:
    """A PNG of a size, in fewer bytes than this line."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


PICTURE = Image.radial_gradient("L").convert("RGB")
FRAMES = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]

BAD_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut-off.jpg": (lambda: encode(PICTURE, "JPEG")[:900], "damaged or cut off"),
    "cut-off.png": (lambda: encode(PICTURE)[:900], "damaged or cut off"),
    "page.jpg": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", "HTML page"),
    "empty.png": (lambda: b"", "empty (0 bytes)"),
    "dot.png": (lambda: encode(Image.new("RGB", (1, 1))), "1 x 1 is too small"),
    "line.png": (lambda: encode(Image.new("RGB", (4000, 10))), "longer than 200:1"),
    "bomb.png": (lambda: header(20_000, 20_000), "400 megapixels, over the limit"),
    "moving.gif": (lambda: encode(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "several frames"),
    "text.png": (lambda: b"just words", "not a picture"),
    "weights.png": (lambda: b"\x80\x04\x95", "not a picture"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_pictures(egm: Egm, tmp_path: Path, name: str) -> None:
    content, says = BAD_FILES[name]
    (tmp_path / name).write_bytes(content())
    check(egm("ground", name, "the cup", "--json"), name, says)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("nope.png", "there is no file 'nope.png'"),
        ("", "is a folder: pass one picture in it"),
        ("x" * 5000, "check the path"),
        ("https://example.org/cup.png", "nothing is fetched"),
        ("file:///etc/passwd", "nothing is fetched"),
        ("/dev/zero", "not a regular file"),
        (".", "holds no images"),
    ],
)
def test_bad_paths(egm: Egm, image: str, says: str) -> None:
    check(egm("ground", image, "the cup"), says)


@pytest.mark.parametrize(
    ("phrase", "says"),
    [
        ("", "the phrase is empty"),
        ("   ", "the phrase is empty"),
        ("\x1b\x07", "the phrase is empty"),
        ("a" * 10_000, "has 10,000 characters, over the limit of 1,000"),
    ],
)
def test_bad_phrases(egm: Egm, tmp_path: Path, phrase: str, says: str) -> None:
    PICTURE.save(tmp_path / "a.png")
    check(egm("ground", "a.png", "the cup", phrase), says)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model", "egm-huge"], "there is no model 'egm-huge': give 'egm-tiny', a folder"),
        (["--model", "./no/folder"], "there is no model './no/folder'"),
        (["--model", "empty"], "'empty' holds no config.json"),
        (["--model", "pickled"], "save it as safetensors"),
        (["--model", "unweighted"], "holds no weights (*.safetensors)"),
        (["--model", "coded"], "EGM runs no code from checkpoints"),
        (["--model", "a.png"], "'a.png' is a file"),
        (["--sample", "--seed", "-1"], "seed -1 is out of range"),
        (["--max-tokens", "0"], "max_new_tokens 0 is out of range"),
        (["--draw", "out.tiff"], "end its name in .png"),
        (["--draw", "empty"], "end its name in .png"),
        (["--draw", "folder.png"], "which is a folder: name a file in it"),
    ],
)
def test_bad_options(egm: Egm, tmp_path: Path, options: list[str], says: str) -> None:
    PICTURE.save(tmp_path / "a.png")
    for name in ("empty", "pickled", "unweighted", "coded", "folder.png"):
        (tmp_path / name).mkdir()
    for name in ("pickled", "unweighted"):
        (tmp_path / name / "config.json").write_text('{"model_type": "qwen3_vl"}')
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (tmp_path / "coded" / "config.json").write_text('{"model_type": "qwen3_vl", "auto_map": {"AutoModel": "x.Y"}}')
    check(egm("ground", "a.png", "the cup", *options), says)


def test_a_model_that_cannot_be_fetched(egm: Egm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    PICTURE.save(tmp_path / "a.png")
    check(
        egm("ground", "a.png", "the cup", "--model", "nobody-at-all/none"), "check the network, or give a local folder"
    )


def test_bad_options_of_a_loaded_model(egm: Egm, tmp_path: Path, tiny_folder: Path) -> None:
    PICTURE.save(tmp_path / "a.png")
    (tmp_path / "many").mkdir()
    PICTURE.save(tmp_path / "many" / "a.png")
    ask = ("--model", tiny_folder)
    check(egm("ground", "a.png", "the cup", *ask, "--prompt", "best"), "unknown prompt style 'best'")
    check(egm("ground", "a.png", "the cup", *ask, "--device", "tpu"), "there is no device 'tpu': use auto, cpu")
    check(egm("ground", "a.png", "the cup", *ask, "--dtype", "int4"), "there is no dtype 'int4': use auto, float32")
    fp8 = egm("ground", "a.png", "the cup", *ask, "--dtype", "fp8", "--device", "cpu")
    check(fp8, "dtype fp8 is for a GPU: use auto or float32 on the CPU")
    check(egm("ground", "many", "the cup", *ask, "--draw", "a.png"), "which is a file: name a folder")


@pytest.mark.parametrize(
    "arguments",
    [["ground"], ["ground", "a.png"], ["ground", "a.png", "cup", "--nope"], ["nope"], ["data", "nope"], ["demo", "x"]],
)
def test_usage(egm: Egm, arguments: list[str]) -> None:
    outcome = egm(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--split", "dev"],
            "SynthRef has no split 'dev': choose one of train, train-complex, train-reworded, train-any, "
            "calibration, val",
        ),
        (["--split", "train"], "say how many scenes, such as --scenes 1000"),
        (["--scenes", "0"], "cannot give 0 scenes"),
        (["--scenes", "501"], "cannot give 501 scenes"),
        (["--scenes", "1", "--out", "a-file"], "check the path"),
    ],
)
def test_bad_data_options(egm: Egm, tmp_path: Path, options: list[str], says: str) -> None:
    (tmp_path / "a-file").write_text("")
    check(egm("data", "synthetic", *options), says)


@pytest.mark.parametrize("command", [("ground", "a.png", "x"), ("bench", "latency"), ("doctor",), ("rationales", "a")])
def test_one_server_is_asked_where_two_are_given(egm: Egm, command: tuple[str, ...]) -> None:
    check(egm(*command, "--server", "http://127.0.0.1:9", "--server=http://127.0.0.1:8"), "--server is given twice")
