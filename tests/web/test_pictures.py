"""Uploads: what `load_image` takes, under a name that is only shown, for as long as there is room."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from egm.errors import ImageError
from egm.web import pictures
from egm.web.kept import Kept
from egm.web.pictures import Uploads, WebPicture


def encoded(size: tuple[int, int], form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (200, 10, 10)).save(stream, form)
    return stream.getvalue()


def test_an_upload_is_kept_by_a_name_of_its_own() -> None:
    uploads = Uploads()
    first, picture = uploads.add(encoded((40, 20)), "C:\\me\\../cat.png")
    second, _ = uploads.add(encoded((40, 20), "JPEG"), "\x1b[2J")
    assert (picture.name, picture.image.size) == ("cat.png", (40, 20))
    assert uploads.get(first) is picture
    assert first != second
    assert uploads.get("x") is None
    assert uploads.get(["x"]) is None


def test_what_is_no_picture_is_refused_by_its_name() -> None:
    with pytest.raises(ImageError, match=r"'notes.md' is not a picture in a format"):
        Uploads().add(b"# notes", "notes.md")
    with pytest.raises(ImageError, match=r"'a.png': empty"):
        Uploads().add(b"", "a.png")


def test_the_oldest_go_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_BYTES", 7000)
    uploads = Uploads()
    names = [uploads.add(encoded((40, 20)), "a.png")[0] for _ in range(4)]
    assert [uploads.get(name) is None for name in names] == [True, True, False, False]


def test_one_that_is_asked_for_is_new_again() -> None:
    kept: Kept[str] = Kept(most=2, size=100)
    first, second = kept.add("a", weight=1), kept.add("b", weight=1)
    assert kept.get(first) == "a"
    kept.add("c", weight=1)
    assert (kept.get(first), kept.get(second)) == ("a", None)
    heavy = kept.add("d", weight=1000)
    assert kept.get(heavy) == "d"


def test_a_picture_that_is_kept_is_kept_once() -> None:
    uploads = Uploads()
    name, picture = uploads.add(encoded((40, 20)), "a.png")
    for _ in range(100):
        assert uploads.keep(picture) == name
    other, _ = uploads.add(encoded((40, 20)), "a.png")
    assert other != name


def test_only_a_jpeg_is_kept_as_the_file_that_it_was() -> None:
    uploads, file = Uploads(), encoded((40, 20), "JPEG")
    assert uploads.add(file, "a.jpg")[1].source == file
    picture = uploads.add(encoded((40, 20)), "a.png")[1]
    assert picture.source is picture.image
    assert (picture.weight, picture.uploaded) == (3200, True)


def test_a_large_picture_is_shown_smaller() -> None:
    image = Image.effect_noise((3000, 1000), 50).convert("RGB")
    shown = Image.open(io.BytesIO(WebPicture("x", image, image).preview))
    assert shown.size == (1280, 427)
    assert image.size == (3000, 1000)
