"""The eight real splits: as large as published, every box in its frame, and readable pictures of the right size."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from egm.boxes import Box
from egm.datasets import EVALUATION, SIZES, Dataset, check_dataset, flip_phrase, open_dataset, write_dataset
from egm.datasets.convert import ENDINGS
from egm.datasets.flip import can_flip
from egm.datasets.registry import evaluation_images
from egm.errors import DataError
from egm.images import load_image
from egm.training.data import check_rows, open_rows
from egm.types import Sample


@pytest.fixture(scope="module")
def pictures(real_data: Callable[[str], Path]) -> dict[str, list[str]]:
    return evaluation_images(real_data("refcoco"))


@pytest.mark.parametrize("name", EVALUATION)
def test_a_split_is_as_published_and_sound(name: str, real_data: Callable[[str], Path]) -> None:
    data = open_dataset(name, data=real_data("refcoco"))
    size = SIZES[name]
    assert len(data) == size.expressions
    assert len({sample.meta["ref"] for sample in data}) == size.refs
    assert len({sample.meta["image_id"] for sample in data}) == size.images
    assert len({sample.id for sample in data}) == len(data)
    assert check_dataset(data, images=False, repeats=False) == []


def test_the_splits_hold_6549_images_some_in_several(pictures: dict[str, list[str]]) -> None:
    assert len(pictures) == 6_549
    assert any(len(splits) > 1 for splits in pictures.values())


@pytest.mark.parametrize("name", EVALUATION)
def test_a_training_set_that_holds_one_picture_of_a_split_leaks(name: str, pictures: dict[str, list[str]]) -> None:
    taken = next(picture for picture, splits in pictures.items() if name in splits)
    names = {"a": f"coco_flip/{taken}", "b": "COCO_train2014_000000000009.jpg"}
    data = Dataset("train", [Sample(key, image, "x", Box(0, 0, 5, 5)) for key, image in names.items()])
    [finding] = check_dataset(data, images=False, held_out=pictures)
    assert (finding.kind, finding.sample) == ("leak", "a")
    assert name in finding.detail


@pytest.mark.parametrize("kind", ENDINGS)
def test_a_whole_split_goes_there_and_back(kind: str, real_data: Callable[[str], Path], tmp_path: Path) -> None:
    data = open_dataset("refcocog/val", data=real_data("refcoco"))
    path = tmp_path / f"refcocog_val{ENDINGS[kind]}"
    root = tmp_path.resolve() if kind == "parquet" else None
    if root is not None:  # whose pictures have to be there, and of the right size
        sizes = {root / str(sample.image): sample.size for sample in data}
        for picture, size in sizes.items():
            assert size is not None
            Image.new("1", size).save(picture, "BMP")
        data = open_dataset("refcocog/val", data=real_data("refcoco"), images=root)
    write_dataset(data, path, kind)
    read = open_dataset(path, images=root)
    for before, after in zip(data, read, strict=True):
        assert (after.id, after.phrase, after.size) == (before.id, before.phrase, before.size)
        assert Path(str(after.image)).name == Path(str(before.image)).name
        assert list(after.box or ()) == pytest.approx(list(before.box or ()), abs=1e-5)
    if kind != "coco":  # the split by its name takes the file, and its size is right
        assert len(open_dataset("refcocog/val", data=tmp_path)) == len(data)


def test_mirrored_phrases_lose_their_side(real_data: Callable[[str], Path]) -> None:
    data = open_dataset("refcoco/val", data=real_data("refcoco"))
    phrases = [sample.phrase for sample in data if re.search("left|right", sample.phrase, re.IGNORECASE)]
    kept = [phrase for phrase in phrases if can_flip(phrase)]
    assert len(kept) > 0.98 * len(phrases) > 2000
    same = {phrase for phrase in kept if flip_phrase(phrase) == phrase}
    assert all(re.search("bright|upright|leftover|left", phrase) for phrase in same), same
    assert len(same) < 40


def test_an_evaluation_file_taken_for_training_leaks_every_image(
    pictures: dict[str, list[str]], real_data: Callable[[str], Path]
) -> None:
    data = open_dataset(real_data("refcoco") / "refcoco_testA.json")
    found = check_dataset(data, images=False, held_out=pictures, repeats=False)
    assert [finding.kind for finding in found] == ["leak"] * 750


def test_training_on_an_evaluation_file_is_refused(
    real_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = real_data("refcoco")
    monkeypatch.setenv("EGM_DATA", str(folder))
    rows = open_rows(str(folder / "refcoco_testA.json"), seed=0)
    with pytest.raises(DataError, match=r"5,657 samples show 750 images of evaluation .* and 745 more: drop"):
        check_rows(rows, thinking=False)


def test_the_pictures_have_the_size_that_the_rows_say(real_data: Callable[[str], Path]) -> None:
    data = open_dataset("refcoco/val", data=real_data("refcoco"), images=real_data("coco_images"))
    here = {sample.image: sample for sample in data if isinstance(sample.image, Path) and sample.image.exists()}
    assert len(here) == 2
    for sample in here.values():
        assert load_image(sample.image, root=data.root).size == sample.size
