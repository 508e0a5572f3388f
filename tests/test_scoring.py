from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egm.boxes import Box, iou
from egm.scoring import score
from egm.types import Failure, Grounding, Score

corner, side = st.floats(-500, 2000), st.floats(0.1, 2000)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), corner, corner, side, side)


@given(boxes, boxes)
def test_score_is_the_iou(box: Box, truth: Box) -> None:
    assert score(Grounding(box=box, failure=None), truth) == Score(iou=iou(box, truth), failure=None)


@pytest.mark.parametrize("failure", list(Failure))
def test_a_failure_scores_zero_and_is_kept(failure: Failure) -> None:
    result = score(Grounding(box=None, failure=failure), Box(0, 0, 10, 10))
    assert result == Score(iou=0.0, failure=failure)
    assert not result.hit()


def test_exactly_half_is_a_hit_unless_strict() -> None:
    result = score(Grounding(box=Box(0, 0, 10, 10), failure=None), Box(0, 0, 10, 20))
    assert result.iou == 0.5
    assert result.hit()
    assert not result.hit(strict=True)


def test_nothing_is_rounded_or_clipped() -> None:
    # A tenth of a pixel counts, and so does what lies outside a frame of 100 x 100.
    truth = Box(0, 0, 100, 100)
    assert score(Grounding(box=Box(0, 0, 100, 99.9), failure=None), truth).iou == pytest.approx(0.999)
    assert score(Grounding(box=Box(-100, 0, 100, 100), failure=None, size=(100, 100)), truth).iou == 0.5
