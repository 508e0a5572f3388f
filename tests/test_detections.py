"""Groundings as supervision's detections and back, by the library itself."""

from __future__ import annotations

import numpy as np
import pytest
import supervision
from PIL import Image

from egm.boxes import Box
from egm.errors import BoxError, MissingExtraError
from egm.types import Failure, Grounding, LabelledBox

BOXES = (Box(10, 20, 110.5, 70.25), Box(-3, 0, 8, 9.125))


def grounding(*, expect: str = "all", sure: float | None = 0.25) -> Grounding:
    items = (LabelledBox(BOXES[0], "cup", sure), LabelledBox(BOXES[1], None, 0.75))
    return Grounding(BOXES[0], None, boxes=items, phrase="the red cup", size=(120, 80), expect=expect)  # type: ignore[arg-type]


def test_boxes_labels_and_confidences_are_told() -> None:
    found = grounding().to_supervision()
    assert isinstance(found, supervision.Detections)
    assert found.xyxy.tolist() == [list(box) for box in BOXES]
    assert found.confidence.tolist() == [0.25, 0.75]
    assert found.data["class_name"].tolist() == ["the red cup", "the red cup"]
    assert found.data["label"].tolist() == ["cup", ""]


def test_what_comes_back_is_what_went() -> None:
    before = grounding()
    after = Grounding.from_supervision(before.to_supervision(), before.phrase, expect="all", size=before.size)
    assert after == before


def test_confidence_is_of_all_boxes_or_of_none() -> None:
    assert grounding(sure=None).to_supervision().confidence is None


def test_only_the_box_that_counts_is_told_where_one_is_asked_for() -> None:
    assert grounding(expect="one").to_supervision().xyxy.tolist() == [list(BOXES[0])]
    bare = Grounding(BOXES[0], None, phrase="cup", confidence=0.5).to_supervision()
    assert (bare.xyxy.tolist(), bare.confidence.tolist()) == ([list(BOXES[0])], [0.5])


def test_a_failure_and_none_are_empty_and_told_apart_by_what_was_asked() -> None:
    failed = Grounding(None, Failure.TRUNCATED, phrase="cup").to_supervision()
    assert len(failed) == 0
    assert Grounding.from_supervision(failed, "cup").failure is Failure.NO_BOX
    assert Grounding.from_supervision(failed, "cup", expect="any").is_none


def test_supervision_draws_and_filters_them() -> None:
    found = grounding().to_supervision()
    sure = found[found.confidence > 0.5]
    assert len(sure) == 1
    assert sure.data["class_name"].tolist() == ["the red cup"]
    picture = Image.new("RGB", (120, 80))
    drawn = supervision.BoxAnnotator(thickness=1).annotate(picture.copy(), found)
    assert np.asarray(drawn).any()


def test_another_detectors_answer_is_read() -> None:
    theirs = supervision.Detections(
        xyxy=np.array([[1, 2, 3, 4]], dtype=np.float32), data={"class_name": np.array(["cat"])}
    )
    found = Grounding.from_supervision(theirs, "the cat")
    assert (found.box, found.boxes[0].label, found.confidence) == (Box(1, 2, 3, 4), "cat", None)


def test_a_row_that_is_no_box_is_named() -> None:
    theirs = supervision.Detections(xyxy=np.array([[1, 2, 3, 4], [9, 2, 3, 4]], dtype=np.float32))
    with pytest.raises(BoxError, match=r"detection 1: box \(9\.0, .* inverted"):
        Grounding.from_supervision(theirs, "the cat")


def test_without_supervision_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match=r"egm-grounding\[supervision\]"):
        grounding().to_supervision()
