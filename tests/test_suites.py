"""Suites: a fixed choice of pictures, with all that is asked about them, the same wherever and for whomever."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from egm.datasets import Dataset, open_dataset
from egm.errors import DataError
from egm.evaluate.suites import SUITES, choose_pictures, open_suite
from egm.types import Sample

NAMES = [f"COCO_train2014_{number:012}.jpg" for number in range(40)]


def splits(folder: str = "train2014", *, shuffled: bool = False) -> dict[str, Dataset]:
    """Two splits that share half of their pictures, with three phrases a picture."""
    made = {}
    for split, pictures in (("a/val", NAMES[:30]), ("b/val", NAMES[15:])):
        samples = [Sample(f"{name}/{k}", str(Path(folder) / name), f"cup {k}") for name in pictures for k in range(3)]
        if shuffled:
            random.Random(1).shuffle(samples)
        made[split] = Dataset(split, samples)
    return made


def chosen(parts: dict[str, Dataset]) -> dict[str, set[str]]:
    return {split: {sample.id for sample in data} for split, data in parts.items()}


def test_all_that_is_asked_about_a_picture_stays_together() -> None:
    parts = choose_pictures(splits(), 10)
    pictures = {Path(str(sample.image)).name for data in parts.values() for sample in data}
    assert len(pictures) == 10
    for split, whole in splits().items():
        assert [s.id for s in parts[split]] == [s.id for s in whole if Path(str(s.image)).name in pictures]
        assert str(parts[split].choice) == "the 10 pictures of seed 0, of 40"
        assert (parts[split].name, whole.choice) == (split, None)


def test_the_choice_is_the_same_in_any_folder_and_order_and_grows_with_its_number() -> None:
    ten = chosen(choose_pictures(splits(), 10))
    assert chosen(choose_pictures(splits("/elsewhere", shuffled=True), 10)) == ten
    twenty = chosen(choose_pictures(splits(), 20))
    assert all(ten[split] < twenty[split] for split in ten)
    assert chosen(choose_pictures(splits(), 40)) == chosen(splits())
    # Written down, so that tomorrow's choice is today's.
    assert sorted({key[23:27] for key in ten["a/val"] | ten["b/val"]}) == [
        "0004",
        "0010",
        "0014",
        "0017",
        "0021",
        "0028",
        "0033",
        "0034",
        "0037",
        "0039",
    ]


def test_what_cannot_be_chosen() -> None:
    with pytest.raises(DataError, match="41 pictures cannot be chosen of 40"):
        choose_pictures(splits(), 41)
    lonely = {**splits(), "c/val": Dataset("c/val", [Sample("last", NAMES[0], "cup")])}
    with pytest.raises(DataError, match="the 3 pictures of seed 0, of 40 hold no question of c/val: choose more"):
        choose_pictures(lonely, 3)


def test_a_suite_is_its_splits_in_order(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no suite 'refcocoo'.*refcoco"):
        open_suite("refcocoo")
    row = {"img_id": f"{NAMES[0][:-4]}_0", "sents": "cup", "bbox": [0, 0, 5, 5], "height": 10, "width": 10}
    for split in SUITES["refcoco"]:
        (tmp_path / f"{split.replace('/', '_')}.json").write_text(json.dumps([row]))
    parts = open_suite("refcoco", data=tmp_path, pictures=1, allow_partial=True)
    assert list(parts) == list(SUITES["refcoco"])
    assert str(parts["refcoco/val"].choice) == "the 1 picture of seed 0, of 1"
    with pytest.raises(DataError, match="1 expressions instead of 10,834"):
        open_suite("refcoco", data=tmp_path)


def test_pictures_that_are_drawn_are_those_of_their_samples() -> None:
    data = open_dataset("synthref/train", first=12)
    part = choose_pictures({"synthref/train": data}, 2)["synthref/train"]
    assert len({sample.image for sample in part.annotations()}) == 2
    whole = {sample.id: sample for sample in data}
    for sample, named in zip(part, part.annotations(), strict=True):
        assert (sample.id, sample.box) == (named.id, named.box)
        assert sample.image == whole[sample.id].image
