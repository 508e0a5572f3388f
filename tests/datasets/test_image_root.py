"""Names of pictures that a file gives: what is no name is a short malformed row, and Windows's are found."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from egm.datasets.image_root import ImageRoot
from egm.errors import DataError, ImageError
from egm.images import load_image


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("x" * 5000, "5,000 characters, too many for a path: if it is the picture itself"),
        ("aGVsbG8+" * 20_000, "(base64), save that to a file"),
        ("data:image/png;base64," + "QUJD" * 50_000, "is a URL, and nothing is fetched"),
        ("javascript:alert(1).png", "is a URL"),
        ("x1:/a.png", "is a URL"),
        ("https://example.org/a.png", "is a URL"),
        ("..\\\\a.png", "lies outside"),
        (["a.png"] * 1000, "must be a relative path"),
        ({"bytes": "x" * 10_000}, "must be a relative path"),
        ("a\0.png", "must be a relative path"),
    ],
)
@pytest.mark.parametrize("rooted", [True, False])
def test_what_is_no_name_is_said_in_a_short_line(tmp_path: Path, name: object, says: str, rooted: bool) -> None:
    with pytest.raises(DataError) as caught:
        ImageRoot(tmp_path / "in" if rooted else None)(name)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_a_part_of_a_name_may_be_too_long_for_the_system(tmp_path: Path) -> None:
    path = ImageRoot(tmp_path)("x" * 300 + "\\a.png")
    with pytest.raises(ImageError, match="File name too long"):
        load_image(path)
    assert ImageRoot(tmp_path)("x" * 300).name == "x" * 300


def test_a_link_leads_nowhere_outside(tmp_path: Path) -> None:
    root = tmp_path.resolve() / "root"
    root.mkdir()
    (root / "out.png").symlink_to("../b.png")
    (root / "in.png").symlink_to("a.png")
    for flat in (False, True):
        assert ImageRoot(root, flat=flat)("in.png") == ImageRoot(root, flat=flat)("a.png") == root / "a.png"
        with pytest.raises(DataError, match="lies outside"):
            ImageRoot(root, flat=flat)("out.png")


def test_names_written_on_windows_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path.resolve()
    (root / "sub").mkdir()
    Image.new("RGB", (8, 8)).save(root / "sub" / "a.png")
    assert ImageRoot(root)("sub\\a.png") == root / "sub" / "a.png"
    monkeypatch.chdir(root)
    assert ImageRoot(None)("sub\\a.png") == Path("sub/a.png")
    Image.new("RGB", (8, 8)).save(root / "sub\\a.png")  # a name like any other where / parts folders
    assert ImageRoot(root)("sub\\a.png") == root / "sub\\a.png"
    assert ImageRoot(root, flat=True)("train\\sub\\b.png") == root / "b.png"
