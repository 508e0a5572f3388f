"""The built-in pictures: what is drawn is where the box says, and in files as in memory."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from egm.backends.openai.messages import plain_jpeg
from egm.boxes import Box, iou
from egm.datasets.synthetic.raster import COLORS
from egm.doctor.pictures import RECIPES, built_in_pictures
from egm.doctor.recording import shipped_recording
from egm.errors import EgmError
from egm.images import load_image


def test_there_are_24_of_many_shapes() -> None:
    sizes = [picture.image.size for picture in built_in_pictures()]
    assert len(sizes) == 24
    assert max(width * height for width, height in sizes) > 1_000_000
    assert min(width * height for width, height in sizes) < 64 * 64
    assert max(width / height for width, height in sizes) >= 4
    assert max(height / width for width, height in sizes) >= 4
    assert sum(width % 32 or height % 32 for width, height in sizes) >= 6
    assert len({picture.digest for picture in built_in_pictures()}) == 24


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.file is None])
def test_the_box_holds_the_colour_that_is_asked_for(name: str) -> None:
    (picture,) = built_in_pictures([name])
    color = next(COLORS[word] for word in picture.phrase.split() if word in COLORS)
    x1, y1, x2, y2 = map(int, picture.box)
    inside = np.asarray(picture.image, dtype=int)[y1:y2, x1:x2]
    near = (np.abs(inside - color).max(axis=2) <= 16).mean()
    assert near > 0.1
    assert picture.box.clip(picture.image.size) == picture.box


def test_egm_tiny_finds_most_of_them() -> None:
    recording = shipped_recording()
    found = [
        answer.box is not None and iou(Box(*answer.box), picture.box) > 0.9
        for picture in built_in_pictures()
        for answer in [recording.answer_to(picture)]
    ]
    assert sum(found) >= 16


@pytest.mark.parametrize(("name", "mode"), [("turned", "RGB"), ("grey", "L"), ("palette", "P")])
def test_files_are_the_picture_in_another_form(name: str, mode: str) -> None:
    (picture,) = built_in_pictures([name])
    assert picture.file is not None
    with Image.open(io.BytesIO(picture.file)) as stored:
        assert stored.mode == mode
        assert (stored.size == picture.image.size) == (name != "turned")
    difference = np.asarray(load_image(picture.file), dtype=int) - np.asarray(picture.image)
    assert np.abs(difference).mean() < (2 if name == "turned" else 1e-9)
    assert plain_jpeg(picture.file, picture.image) is None  # a client sends it upright and in RGB


def test_twins_differ_in_nothing_but_what_is_in_them() -> None:
    pictures = {picture.name: picture for picture in built_in_pictures()}
    twins = [(picture, pictures[picture.recipe.twin]) for picture in pictures.values() if picture.recipe.twin]
    assert len(twins) == 2
    for one, other in twins:
        assert (one.phrase, one.image.size) == (other.phrase, other.image.size)
        assert iou(one.box, other.box) == 0


def test_an_unknown_picture_is_refused() -> None:
    with pytest.raises(EgmError, match="there is no built-in picture 'square'"):
        built_in_pictures(["square"])
