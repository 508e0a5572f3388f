"""What is found wrong, and what is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from egm.boxes import Box
from egm.datasets import Dataset, check_dataset
from egm.types import Sample


@pytest.fixture
def good(tmp_path: Path) -> Sample:
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    return Sample("one", tmp_path / "a.png", "a cup", Box(0, 0, 60.004, 40), (60, 40))


def kinds(*samples: Sample, **options: object) -> list[tuple[str, str]]:
    data = Dataset("set", [dataclasses.replace(sample, id=str(k)) for k, sample in enumerate(samples)])
    return [(finding.kind, finding.sample) for finding in check_dataset(data, **options)]  # type: ignore[arg-type]


def test_nothing_wrong(good: Sample) -> None:
    assert kinds(good, dataclasses.replace(good, phrase="a mug"), dataclasses.replace(good, box=None)) == []


def test_pictures(good: Sample, tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    gone = dataclasses.replace(good, image=tmp_path / "none.png")
    cut = dataclasses.replace(good, image=tmp_path / "cut.png")
    other = dataclasses.replace(good, size=(40, 60), phrase="a mug", box=None)
    found = kinds(other, cut, gone, dataclasses.replace(gone, phrase="x"))
    assert found == [("missing image", "2"), ("unreadable image", "1"), ("wrong size", "0")]
    assert kinds(other, cut, gone, images=False) == []


def test_boxes_outside_but_not_those_of_whole_objects(good: Sample) -> None:
    outside = [dataclasses.replace(good, box=box) for box in (Box(-1, 0, 5, 5), Box(0, 0, 60, 40.5), Box(70, 0, 80, 9))]
    amodal = dataclasses.replace(good, box=Box(-9, 0, 5, 5), amodal=True)
    assert kinds(amodal, *outside) == [("box outside", str(k)) for k in (1, 2, 3)]


def test_samples_whose_own_truth_cannot_answer_them(good: Sample) -> None:
    none = dataclasses.replace(good, box=None, boxes=())
    many = dataclasses.replace(good, box=None, boxes=(Box(1, 1, 5, 5), Box(6, 6, 9, 9)))
    expects = [(none, "one"), (none, "any"), (none, "all"), (many, "one"), (many, "any"), (many, "all"), (good, "any")]
    samples = [dataclasses.replace(sample, expect=expect, phrase=f"{k}") for k, (sample, expect) in enumerate(expects)]
    assert kinds(*samples) == [("wrong expect", str(k)) for k in (0, 3, 4)]
    [finding] = check_dataset(Dataset("set", [none]))
    assert finding.detail == "it has no true box, as nothing matches, and expects one: ask it with expect=any or all"


def test_repeats(good: Sample) -> None:
    same = dataclasses.replace(good, phrase=" A  Cup")
    elsewhere = dataclasses.replace(good, box=Box(1, 1, 2, 2))
    assert kinds(good, same, elsewhere, same) == [("duplicate", "1"), ("duplicate", "3")]
    assert kinds(good, same, repeats=False) == []


def test_leaks_are_found_under_other_names_once_a_picture(good: Sample) -> None:
    held_out = {"COCO_train2014_000000000005.jpg": ["refcoco/val"], "b.png": ["refcoco/testA"]}
    names = ["coco_flip/000000000005_mirrored.png", "b.png", "b.png", "c.png", "COCO_train2014_000000000006.jpg"]
    samples = [dataclasses.replace(good, image=Path(name), phrase=str(k)) for k, name in enumerate(names)]
    assert kinds(*samples, images=False, held_out=held_out) == [("leak", "0"), ("leak", "1")]
    data = Dataset("set", samples[1:2])
    assert check_dataset(data, images=False, held_out=held_out)[0].detail == "b.png is in refcoco/testA"
