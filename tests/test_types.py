from __future__ import annotations

import dataclasses
import json

import pytest
from PIL import Image

from egm.boxes import Box
from egm.errors import ImageError
from egm.types import Completion, Failure, Grounding, LabelledBox, Sample, Score

BOX = Box(1.23456, 2, 30, 40)


@pytest.mark.parametrize(
    "value",
    [
        Sample(id="a", image="a.png", phrase="the cup"),
        Completion(text="x"),
        LabelledBox(BOX),
        Grounding(box=BOX, failure=None),
        Score(iou=0.5),
    ],
)
def test_values_are_frozen(value: object) -> None:
    name = dataclasses.fields(value)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, None)


def test_samples_do_not_share_their_meta() -> None:
    a, b = (Sample(id=name, image="a.png", phrase="the cup") for name in "ab")
    assert a.meta == {}
    assert a.meta is not b.meta


@pytest.mark.parametrize(("box", "failure"), [(None, None), (BOX, Failure.NO_BOX)])
def test_a_grounding_holds_a_box_or_a_failure(box: Box | None, failure: Failure | None) -> None:
    with pytest.raises(ValueError, match="either a box or the failure"):
        Grounding(box=box, failure=failure)


def test_failures_are_plain_words_that_survive_json() -> None:
    assert {str(failure) for failure in Failure} == {
        "no_box",
        "truncated",
        "malformed",
        "refused",
        "out_of_range",
        "degenerate",
        "repeated",
    }
    for failure in Failure:
        assert Failure(json.loads(json.dumps(failure))) is failure


def test_grounding_to_dict_goes_through_json() -> None:
    grounding = Grounding(
        box=BOX,
        failure=None,
        reasoning="It is left of the jug.",
        text="...",
        boxes=(LabelledBox(BOX, "cup"), LabelledBox(Box(0, 0, 1, 1))),
        repairs=("single_quotes",),
        phrase="the cup",
        size=(64, 48),
        tokens=12,
        prompt_tokens=300,
        seconds=0.123456,
        votes=3,
        confidence=2 / 3,
        logprob=-0.25,
        image=Image.new("RGB", (64, 48)),
    )
    assert json.loads(json.dumps(grounding.to_dict())) == {
        "phrase": "the cup",
        "box": [1.23, 2.0, 30.0, 40.0],
        "failure": None,
        "boxes": [{"box": [1.23, 2.0, 30.0, 40.0], "label": "cup"}, {"box": [0.0, 0.0, 1.0, 1.0], "label": None}],
        "reasoning": "It is left of the jug.",
        "text": "...",
        "repairs": ["single_quotes"],
        "size": [64, 48],
        "tokens": 12,
        "prompt_tokens": 300,
        "seconds": 0.1235,
        "votes": 3,
        "confidence": 0.6667,
        "logprob": -0.25,
        "answer_logprob": None,
        "tail_cut": False,
    }


def test_failed_grounding_to_dict_keeps_its_failure() -> None:
    failed = Grounding(box=None, failure=Failure.TRUNCATED).to_dict()
    assert (failed["box"], failed["failure"], failed["size"]) == (None, "truncated", None)


def test_the_picture_takes_no_part_in_repr_or_equality() -> None:
    with_picture = Grounding(box=BOX, failure=None, image=Image.new("RGB", (8, 8)))
    assert with_picture == Grounding(box=BOX, failure=None)
    assert "Image" not in repr(with_picture)


def test_draw_without_a_picture_says_what_to_do() -> None:
    with pytest.raises(ImageError, match=r"Grounder\.ground"):
        Grounding(box=BOX, failure=None).draw()


@pytest.mark.parametrize(
    ("iou", "at_least", "more_than"), [(0.4999, False, False), (0.5, True, False), (0.5001, True, True)]
)
def test_hit_at_the_threshold(iou: float, at_least: bool, more_than: bool) -> None:
    assert Score(iou).hit() is at_least
    assert Score(iou).hit(strict=True) is more_than


def test_hit_at_another_threshold() -> None:
    assert Score(0.8).hit(0.75)
    assert not Score(0.7).hit(0.75)
