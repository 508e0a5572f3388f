"""Filters that know other data: what was kept before, and what is evaluated on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from egm.boxes import Box
from egm.datasets.synthetic import SynthRef
from egm.errors import DataError, MissingExtraError
from egm.rationales.candidate import Candidate
from egm.rationales.filters import EvaluationPicture, NearDuplicate

Say = Callable[..., Candidate]
CANNED = "The object stands out from the rest by its colour and its place, which fit the words of the phrase."


def test_the_same_words_for_another_object_are_a_duplicate(say: Say) -> None:
    check = NearDuplicate()
    first = say(CANNED, name="first")
    assert check.check(first) is None
    other = say(f"Clearly, {CANNED[0].lower()}{CANNED[1:]} That settles it.", box=Box(1, 2, 30, 40))
    assert check.check(other) is None  # the first was not kept
    check.remember(first)
    why = check.check(other)
    assert why is not None
    assert why.startswith("alike to ")
    assert why.endswith("% with that of sample first")
    assert check.check(replace(first, text=f"{CANNED} That settles it.")) is None  # of the same object
    assert check.check(say("The brown dog lies on the lawn beside the cat.", box=Box(1, 2, 30, 40))) is None


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasketch", None)
    with pytest.raises(MissingExtraError, match=r'near_duplicate needs datasketch.*"egm-grounding\[rationales\]"'):
        NearDuplicate()


def test_frozen_splits_of_synthref_are_told_by_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EGM_DATA", str(tmp_path))
    check = EvaluationPicture()
    held_out, train = SynthRef("val").samples(0)[0], SynthRef("train").samples(0)[0]
    assert check.check(Candidate(held_out, "It.", "official")) == "it is in synthref/val"
    assert check.check(Candidate(train, "It.", "official")) is None
    assert check.unknown is None
    check.check(Candidate(replace(train, id="1", image="a.png"), "It.", "official"))
    assert check.unknown is not None  # nothing of RefCOCO is there


def test_pictures_are_told_by_coco_number_and_by_pixels(tmp_path: Path, say: Say) -> None:
    picture = SynthRef("train", seed=7).scene(0).pixels
    Image.fromarray(picture).save(tmp_path / "COCO_train2014_000000000042.png")
    height, width = picture.shape[:2]
    row = f'{{"image": "COCO_train2014_000000000042.png", "sent": "x", "bbox": [1, 2, 9, 9], "height": {height}, '
    (tmp_path / "test.jsonl").write_text(f'{row}"width": {width}}}\n')
    names = EvaluationPicture(against=(str(tmp_path / "test.jsonl"),))
    pixels = EvaluationPicture(against=(str(tmp_path / "test.jsonl"),), pixels=True)

    def ask(check: EvaluationPicture, image: object) -> str | None:
        candidate = say("It.")
        return check.check(replace(candidate, sample=replace(candidate.sample, image=image)))  # type: ignore[arg-type]

    assert "000000000042 is in " in str(ask(names, "flipped/000000000042.jpg"))
    renamed = ImageOps.mirror(Image.fromarray(picture))
    assert ask(names, renamed) is None
    assert str(ask(pixels, renamed)).startswith("its pixels are those of a picture in ")
    assert ask(pixels, Image.new("RGB", (64, 64))) is None
    assert ask(pixels, tmp_path / "missing.png") is None


def test_annotations_that_were_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        EvaluationPicture(data=str(tmp_path))
