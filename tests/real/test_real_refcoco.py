"""The eight real splits: as large as published, every box in its frame, and readable pictures of the right size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from egm.datasets import EVALUATION, SIZES, check_dataset, open_dataset
from egm.datasets.registry import evaluation_images
from egm.errors import DataError
from egm.images import load_image
from egm.training.data import check_rows, open_rows
from egm.training.recipe import DataSection


@pytest.mark.parametrize("name", EVALUATION)
def test_a_split_is_as_published_and_sound(name: str, real_data: Callable[[str], Path]) -> None:
    data = open_dataset(name, data=real_data("refcoco"))
    size = SIZES[name]
    assert len(data) == size.expressions
    assert len({sample.meta["ref"] for sample in data}) == size.refs
    assert len({sample.meta["image_id"] for sample in data}) == size.images
    assert len({sample.id for sample in data}) == len(data)
    assert check_dataset(data, images=False, repeats=False) == []


def test_the_splits_hold_6549_images_some_in_several(real_data: Callable[[str], Path]) -> None:
    images = evaluation_images(real_data("refcoco"))
    assert len(images) == 6_549
    assert any(len(splits) > 1 for splits in images.values())


def test_an_evaluation_file_taken_for_training_leaks_every_image(real_data: Callable[[str], Path]) -> None:
    folder = real_data("refcoco")
    data = open_dataset(folder / "refcoco_testA.json")
    found = check_dataset(data, images=False, held_out=evaluation_images(folder), repeats=False)
    assert [finding.kind for finding in found] == ["leak"] * 750


def test_training_on_an_evaluation_file_is_refused(
    real_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = real_data("refcoco")
    monkeypatch.setenv("EGM_DATA", str(folder))
    rows = open_rows(DataSection(train=str(folder / "refcoco_testA.json")), 0)
    with pytest.raises(DataError, match=r"5,657 samples show 750 images of evaluation .* and 745 more: drop"):
        check_rows(rows, thinking=False)


def test_the_pictures_have_the_size_that_the_rows_say(real_data: Callable[[str], Path]) -> None:
    data = open_dataset("refcoco/val", data=real_data("refcoco"), images=real_data("coco_images"))
    here = {sample.image: sample for sample in data if isinstance(sample.image, Path) and sample.image.exists()}
    assert len(here) == 2
    for sample in here.values():
        assert load_image(sample.image, root=data.root).size == sample.size
