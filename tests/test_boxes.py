from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egm.boxes import Box, giou, giou_array, iou, iou_array, is_valid_array, pairwise_iou
from egm.errors import BoxError

coordinates = st.floats(-4000, 4000)
sides = st.floats(0.01, 4000)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), coordinates, coordinates, sides, sides)
sizes = st.tuples(st.integers(8, 5000), st.integers(8, 5000))
# Integer corners: sums and differences are exact, so equalities can be asked for as such.
whole_boxes = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h),
    *(st.integers(-1000, 1000) for _ in range(2)),
    *(st.integers(1, 1000) for _ in range(2)),
)


# ---- the box itself


@pytest.mark.parametrize(
    "corners",
    [
        (5, 0, 5, 9),
        (0, 5, 9, 5),
        (9, 0, 5, 9),
        (0, 9, 9, 5),
        (math.nan, 0, 5, 5),
        (0, 0, math.inf, 5),
        (-math.inf, 0, 5, 5),
    ],
)
def test_what_is_no_box_cannot_be_made(corners: tuple[float, float, float, float]) -> None:
    with pytest.raises(BoxError) as caught:
        Box(*corners)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_box_is_a_value() -> None:
    box = Box(10, 20, 110, 70)
    assert box == Box(10.0, 20.0, 110.0, 70.0)
    assert len({box, Box(10, 20, 110, 70)}) == 1
    assert tuple(box) == (10.0, 20.0, 110.0, 70.0)
    assert all(isinstance(value, float) for value in box)
    assert (box.width, box.height, box.area) == (100, 50, 5000)
    with pytest.raises(AttributeError):
        box.x1 = 0  # type: ignore[misc]


def test_numpy_numbers_become_floats() -> None:
    assert [type(value) for value in Box(*np.array([1, 2, 3, 4], np.float32))] == [float] * 4


def test_from_xywh_by_hand() -> None:
    assert Box.from_xywh([10, 20, 100, 50]) == Box(10, 20, 110, 70)
    with pytest.raises(BoxError):
        Box.from_xywh([10, 20, 0, 50])


@given(whole_boxes)
def test_xywh_keeps_width_and_height(box: Box) -> None:
    assert Box.from_xywh((box.x1, box.y1, box.width, box.height)) == box


# ---- the 0-1000 scale


def test_1000_by_hand() -> None:
    assert Box.from_1000((0, 250, 500, 1000), (640, 480)) == Box(0, 120, 320, 480)
    assert Box(0, 120, 320, 480).to_1000((640, 480)) == (0, 250, 500, 1000)
    # Half a unit rounds up, at even and odd alike.
    assert Box(0.5, 1.5, 2.5, 3.5).to_1000((1000, 1000)) == (1, 2, 3, 4)
    # Amodal: nothing is clipped.
    assert Box(-64, -1, 704, 481).to_1000((640, 480)) == (-100, -2, 1100, 1002)


@given(boxes, sizes)
def test_to_1000_is_within_half_a_unit(box: Box, size: tuple[int, int]) -> None:
    for value, box_1000, side in zip(box, box.to_1000(size), (*size, *size), strict=True):
        assert abs(box_1000 - value * 1000 / side) <= 0.5 + 1e-6


@given(st.lists(st.integers(-200, 1200), min_size=4, max_size=4), sizes)
def test_from_1000_and_back_changes_nothing(numbers: list[int], size: tuple[int, int]) -> None:
    x1, y1, x2, y2 = numbers
    box_1000 = (min(x1, x2), min(y1, y2), max(x1, x2) + 1, max(y1, y2) + 1)
    assert Box.from_1000(box_1000, size).to_1000(size) == box_1000


# ---- clipping


def test_clip_by_hand() -> None:
    assert Box(-5, -5, 700, 100).clip((640, 480)) == Box(0, 0, 640, 100)
    assert Box(640, 0, 700, 100).clip((640, 480)) is None
    assert Box(-9, -9, 0, 0).clip((640, 480)) is None


@given(boxes, sizes)
def test_clip_stays_inside_and_is_idempotent(box: Box, size: tuple[int, int]) -> None:
    clipped = box.clip(size)
    if clipped is None:
        assert iou(box, Box(0, 0, *size)) == 0
        return
    assert clipped.x1 >= 0
    assert clipped.y1 >= 0
    assert clipped.x2 <= size[0]
    assert clipped.y2 <= size[1]
    assert clipped.clip(size) == clipped


@given(st.integers(-500, 1500), st.integers(-500, 1500), st.integers(1, 900), st.integers(1, 900), st.integers(8, 1000))
def test_mirrored_twice_and_its_place(x: int, y: int, width: int, height: int, frame: int) -> None:
    box = Box(x, y, x + width, y + height)
    mirrored = box.mirrored(frame)
    assert mirrored.mirrored(frame) == box
    assert (mirrored.width, mirrored.y1, mirrored.y2) == (box.width, box.y1, box.y2)
    assert mirrored.x1 == frame - box.x2  # the gap at one side is the gap at the other


# ---- IoU and GIoU

UNIT = Box(0, 0, 10, 10)


@pytest.mark.parametrize(
    ("other", "expected_iou", "expected_giou"),
    [
        (Box(0, 0, 10, 10), 1, 1),
        (Box(0, 0, 5, 10), 1 / 2, 1 / 2),  # inside: the hull is the larger box
        (Box(5, 0, 15, 10), 1 / 3, 1 / 3),  # 50 of 150, the hull is the union
        (Box(5, 5, 15, 15), 1 / 7, 1 / 7 - 50 / 225),  # 25 of 175, hull 15 x 15
        (Box(10, 0, 20, 10), 0, 0),  # they touch: nothing shared, nothing empty
        (Box(20, 0, 30, 10), 0, -1 / 3),  # 200 of a hull of 300
        (Box(90, 90, 100, 100), 0, -0.98),  # 200 of a hull of 10,000
    ],
)
def test_overlap_by_hand(other: Box, expected_iou: float, expected_giou: float) -> None:
    assert iou(UNIT, other) == pytest.approx(expected_iou, abs=1e-12)
    assert giou(UNIT, other) == pytest.approx(expected_giou, abs=1e-12)


@given(boxes, boxes)
def test_symmetry_and_bounds(a: Box, b: Box) -> None:
    assert iou(a, b) == iou(b, a)
    assert giou(a, b) == giou(b, a)
    assert 0 <= iou(a, b) <= 1
    assert -1 < giou(a, b) <= iou(a, b)


@given(boxes)
def test_identity(box: Box) -> None:
    assert iou(box, box) == pytest.approx(1, abs=1e-12)
    assert giou(box, box) == pytest.approx(1, abs=1e-12)


@given(whole_boxes, whole_boxes)
def test_only_equal_boxes_score_one_and_only_disjoint_ones_zero(a: Box, b: Box) -> None:
    assert (iou(a, b) == 1) == (a == b)
    apart = a.x2 <= b.x1 or b.x2 <= a.x1 or a.y2 <= b.y1 or b.y2 <= a.y1
    assert (iou(a, b) == 0) == apart


@given(whole_boxes, whole_boxes, st.integers(-5000, 5000), st.integers(-5000, 5000))
def test_translation_changes_nothing(a: Box, b: Box, dx: int, dy: int) -> None:
    def moved(box: Box) -> Box:
        return Box(box.x1 + dx, box.y1 + dy, box.x2 + dx, box.y2 + dy)

    assert iou(moved(a), moved(b)) == pytest.approx(iou(a, b), abs=1e-12)
    assert giou(moved(a), moved(b)) == pytest.approx(giou(a, b), abs=1e-12)


@given(boxes, boxes, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_scale_changes_nothing_even_when_the_axes_differ(a: Box, b: Box, sx: float, sy: float) -> None:
    def scaled(box: Box) -> Box:
        return Box(box.x1 * sx, box.y1 * sy, box.x2 * sx, box.y2 * sy)

    # The corners round; relative to the shortest side allowed here that is up to 4000 * 2**-52 / 0.01.
    assert iou(scaled(a), scaled(b)) == pytest.approx(iou(a, b), abs=1e-8)
    assert giou(scaled(a), scaled(b)) == pytest.approx(giou(a, b), abs=1e-8)


@pytest.mark.filterwarnings("error")
def test_absurd_numbers_score_as_boxes_and_never_as_nan() -> None:
    huge, tiny = Box(-1e308, -1e308, 1e308, 1e308), Box(0, 0, 1e-300, 1e-300)
    assert iou(huge, huge) == giou(huge, huge) == 1
    assert iou(tiny, tiny) == 1
    assert iou(huge, UNIT) == 0
    assert giou(UNIT, Box(1e200, 1e200, 2e200, 2e200)) == pytest.approx(-0.75)


@pytest.mark.filterwarnings("error")
def test_rows_that_are_no_boxes_score_the_least() -> None:
    bad = [[5, 0, 5, 9], [9, 9, 0, 0], [math.nan, 0, 5, 5], [0, 0, math.inf, 5], [-math.inf, 0, math.inf, 5]]
    good = [[0, 0, 10, 10]] * len(bad)
    assert not is_valid_array(bad).any()
    for a, b in ((bad, good), (good, bad), (bad, bad)):
        assert iou_array(a, b).tolist() == [0] * len(bad)
        assert giou_array(a, b).tolist() == [-1] * len(bad)


@given(st.lists(st.tuples(boxes, boxes), min_size=1, max_size=8))
def test_arrays_are_the_scalars(pairs: list[tuple[Box, Box]]) -> None:
    first, second = ([tuple(pair[index]) for pair in pairs] for index in (0, 1))
    assert iou_array(first, second).tolist() == [iou(a, b) for a, b in pairs]
    assert giou_array(first, second).tolist() == [giou(a, b) for a, b in pairs]
    table = pairwise_iou(first, second)
    assert table.tolist() == [[iou(a, b) for _, b in pairs] for a, _ in pairs]


def test_pairwise_shapes() -> None:
    assert pairwise_iou(np.zeros((0, 4)), [[0, 0, 1, 1]]).shape == (0, 1)
    assert pairwise_iou([[0, 0, 1, 1]] * 3, [[0, 0, 1, 1]] * 2).shape == (3, 2)
    assert iou_array([], []).shape == (0,)


@pytest.mark.parametrize("shape", [(4,), (2, 5), (1, 2, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BoxError, match=r"shape \(N, 4\)"):
        iou_array(np.ones(shape), np.ones(shape))


@given(st.lists(boxes, min_size=1, max_size=6), st.lists(boxes, min_size=1, max_size=6))
def test_agreement_with_torchvision(first: list[Box], second: list[Box]) -> None:
    import torch
    from torchvision.ops import box_iou, generalized_box_iou

    a, b = ([tuple(box) for box in items] for items in (first, second))
    tensors = [torch.tensor(rows, dtype=torch.float64) for rows in (a, b)]
    np.testing.assert_allclose(pairwise_iou(a, b), box_iou(*tensors).numpy(), atol=1e-9)
    rows, columns = np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1))
    np.testing.assert_allclose(giou_array(rows, columns), generalized_box_iou(*tensors).numpy().ravel(), atol=1e-9)
