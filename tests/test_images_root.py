"""What `root` keeps out."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from egm.errors import ImageError
from egm.images import load_image


def picture() -> Image.Image:
    return Image.new("RGB", (32, 16), "red")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with one picture in it, and one outside."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    picture().save(root / "sub" / "in.png")
    picture().save(tmp_path / "out.png")
    return root


def test_root_takes_relative_and_absolute_paths_and_links_inside(tree: Path) -> None:
    (tree / "link.png").symlink_to(tree / "sub" / "in.png")
    for path in ("sub/in.png", tree / "sub" / "in.png", "sub/../sub/in.png", "link.png"):
        assert load_image(path, root=tree).size == (32, 16)


def test_root_that_is_a_link(tree: Path) -> None:
    (tree.parent / "alias").symlink_to(tree)
    assert load_image("sub/in.png", root=tree.parent / "alias").size == (32, 16)


def test_root_refuses_what_leads_outside(tree: Path) -> None:
    (tree / "link.png").symlink_to(tree.parent / "out.png")
    (tree / "up").symlink_to(tree.parent)
    for path in ("../out.png", "../../etc/passwd", "/etc/passwd", tree.parent / "out.png", "link.png", "up/out.png"):
        with pytest.raises(ImageError, match="outside"):
            load_image(path, root=tree)


def test_root_is_not_matched_as_text(tree: Path) -> None:
    sibling = tree.parent / "root-other"
    sibling.mkdir()
    picture().save(sibling / "x.png")
    with pytest.raises(ImageError, match="outside"):
        load_image(sibling / "x.png", root=tree)
