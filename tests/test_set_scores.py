"""Scores of answers with any number of boxes, against SciPy, brute force, pycocotools and figures by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from egm.assignment import assign, bottleneck_iou, match_boxes
from egm.boxes import pairwise_iou
from egm.set_scores import average_precision, score_set
from egm.stats import THRESHOLDS

A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)


def boxes(random: np.random.Generator, count: int) -> list[list[float]]:
    corner = random.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + random.uniform(5, 40, (count, 2))], axis=1).tolist()


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 7), (9, 4), (12, 12)])
def test_an_assignment_is_worth_what_scipys_is(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(sum(shape))
    for _ in range(40):
        weights = random.choice([random.normal(size=shape), random.integers(0, 3, shape).astype(float)])
        pairs = assign(weights)
        best = weights[linear_sum_assignment(weights, maximize=True)].sum()
        assert len(pairs) == min(shape) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        assert sum(weights[pair] for pair in pairs) == pytest.approx(best)


def by_trying(ious: np.ndarray, threshold: float) -> tuple[int, float]:
    """Most pairs, and the greatest sum of IoUs of so many, by going through all permutations."""
    wide = ious if ious.shape[0] <= ious.shape[1] else ious.T
    found = []
    for columns in itertools.permutations(range(wide.shape[1]), wide.shape[0]):
        kept = [value for row, column in enumerate(columns) if (value := wide[row, column]) >= threshold]
        found.append((len(kept), sum(kept)))
    return max(found)


def test_most_boxes_are_matched_and_then_best() -> None:
    random = np.random.default_rng(0)
    for _ in range(150):
        ious = random.uniform(0, 1, random.integers(1, 6, 2)) * (random.random() < 0.8)
        pairs = match_boxes(ious, 0.5)
        count, total = by_trying(ious, 0.5)
        assert len(pairs) == count
        assert sum(ious[pair] for pair in pairs) == pytest.approx(total)


def test_the_bottleneck_is_where_all_boxes_still_pair_off() -> None:
    random = np.random.default_rng(1)
    for count in (1, 2, 3, 4, 5):
        for _ in range(40):
            ious = random.uniform(0, 1, (count, count)) * (random.uniform(size=(count, count)) < 0.8)
            best = max(min(ious[i, p] for i, p in enumerate(order)) for order in itertools.permutations(range(count)))
            assert bottleneck_iou(ious) == pytest.approx(best)
    assert bottleneck_iou(np.zeros((0, 0))) == 1
    assert bottleneck_iou(np.ones((1, 2))) == bottleneck_iou(np.ones((0, 1))) == 0


def test_figures_by_hand() -> None:
    two_of_three = score_set([A, B], [A, B, C])
    assert (two_of_three.precision(), two_of_three.recall()) == (1, pytest.approx(2 / 3))
    assert two_of_three.f1() == pytest.approx(4 / 5) == two_of_three.mean_f1()
    twice = score_set([A, A], [A])
    assert (twice.precision(), twice.recall()) == (0.5, 1)
    assert score_set([], []).f1() == score_set([], []).precision() == 1
    assert score_set([A], []).f1() == score_set([], [A]).f1() == score_set([], [A]).precision() == 0
    loose = score_set([(0, 0, 10, 7)], [A])  # an IoU of 0.7
    assert loose.f1(0.7) == 1
    assert loose.f1(0.75) == 0
    assert loose.mean_f1() == loose.mean_precision() == loose.mean_recall() == pytest.approx(0.5)
    assert score_set([A, C], [A]).mean_precision() == pytest.approx(0.5)
    assert score_set([A], [A, C, B]).mean_recall() == pytest.approx(1 / 3)
    # Greedy pairing takes the box that fits both, and leaves the other without one.
    first, second = (0, 0, 100, 10), (50, 0, 150, 10)
    assert score_set([(10, 0, 120, 10), (0, 0, 90, 10)], [first, second]).f1() == 1


def test_thousands_of_boxes_are_scored_in_no_time() -> None:
    many = [(x, 0, x + 10, 10) for x in range(5000)]
    assert score_set(many, [A, B, C]).recall() == 1
    assert score_set([A] * 5000, [A]).precision() == 1 / 5000


def test_average_precision_by_hand() -> None:
    # Ranked: right, wrong, right of two: precision 1 up to recall 0.5 (51 recalls), then 2/3 (50).
    found = average_precision([[A, C], [B]], [[0.9, 0.8], [0.7]], [[A], [B]], (0.5,))
    assert found == (pytest.approx((51 + 50 * 2 / 3) / 101),)
    assert average_precision([[A], []], [[0.5], []], [[], []]) is None
    assert average_precision([[]], [[]], [[A]], (0.5,)) == (0,)
    twice = average_precision([[A, A, B]], [[0.9, 0.8, 0.1]], [[A, B]], (0.5,))  # a second box on A is wrong
    assert twice == (pytest.approx((51 + 50 * 2 / 3) / 101),)


def test_average_precision_is_that_of_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    random = np.random.default_rng(2)
    truths = [boxes(random, count) for count in random.integers(0, 5, 60)]
    answers, confidences = [], []
    for true in truths:
        near = np.asarray(true or np.zeros((0, 4))) + random.normal(0, 2, (len(true), 4))
        answers.append([*near[random.random(len(true)) < 0.8].tolist(), *boxes(random, int(random.integers(0, 3)))])
        answers[-1] = [box for box in answers[-1] if box[2] > box[0] and box[3] > box[1]]
        confidences.append(random.integers(0, 8, len(answers[-1])).astype(float).tolist())

    def xywh(box: list[float]) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    known = coco.COCO()
    known.dataset = {
        "images": [{"id": number} for number in range(len(truths))],
        "categories": [{"id": 1}],
        "annotations": [
            {"image_id": number, "category_id": 1, "bbox": xywh(box), "area": 1.0, "iscrowd": 0}
            for number, true in enumerate(truths)
            for box in true
        ],
    }
    for number, annotation in enumerate(known.dataset["annotations"], 1):
        annotation["id"] = number
    known.createIndex()
    results = [
        {"image_id": number, "category_id": 1, "bbox": xywh(box), "score": sure}
        for number, (own, scores) in enumerate(zip(answers, confidences, strict=True))
        for box, sure in zip(own, scores, strict=True)
    ]
    evaluation = COCOeval(known, known.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    theirs = evaluation.eval["precision"][:, :, 0, 0, -1].mean(axis=1)
    assert average_precision(answers, confidences, truths) == pytest.approx(theirs)


def test_one_box_scores_as_its_iou_does() -> None:
    random = np.random.default_rng(3)
    for a, b in zip(boxes(random, 50), boxes(random, 50), strict=True):
        overlap = pairwise_iou([a], [b])
        assert bottleneck_iou(overlap) == overlap[0, 0]
        assert [score_set([a], [b]).f1(level) == 1 for level in THRESHOLDS] == (overlap[0, 0] >= THRESHOLDS).tolist()
