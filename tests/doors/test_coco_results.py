"""COCO results, by pycocotools itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from egm.doors.answers import ExportedAnswer, read_answers
from egm.doors.coco_results import coco_results
from egm.errors import DataError
from egm.journal import read_journal
from egm.set_scores import average_precision

from .conftest import MakeRun


def judged(answers: list[ExportedAnswer], folder: Path) -> list[float]:
    """What COCO's own evaluation makes of it: AP at 0.5:0.95, and at 0.5."""
    results, truth = coco_results(answers)
    for name, content in (("results.json", results), ("truth.json", truth)):
        (folder / name).write_text(json.dumps(content))
    annotated = COCO(str(folder / "truth.json"))
    judge = COCOeval(annotated, annotated.loadRes(str(folder / "results.json")), "bbox")
    judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
    judge.evaluate()
    judge.accumulate()
    precision = judge.eval["precision"][:, :, 0, 0, -1]
    return [float(precision.mean()), float(precision[0].mean())]


def test_cocos_own_average_precision_is_ours(make_run: MakeRun, tmp_path: Path) -> None:
    answers: list[str | list[list[int]] | None] = [None] * 24
    answers[1] = [[0, 0, 1000, 1000]]
    answers[4] = "nothing</think>[]"
    answers[7] = [[10, 10, 300, 300], [0, 0, 40, 50]]
    run = make_run("test-all", answers, sure=[-0.05 * number for number in range(24)])
    _, records = read_journal(run)
    asked = [
        ([record.answered for record in records]),
        ([list(record.confidences or ()) for record in records]),
        ([record.true_boxes for record in records]),
    ]
    ours = average_precision(*asked)
    assert ours is not None
    assert 0.2 < ours[0] < 1
    whole, half = judged(read_answers(run), tmp_path)
    assert half == pytest.approx(ours[0], abs=1e-9)
    assert whole == pytest.approx(sum(ours) / len(ours), abs=1e-9)


def test_a_box_answers_its_own_phrase_alone(make_run: MakeRun, tmp_path: Path) -> None:
    """Two questions about one picture, whose answers are exchanged, are both wrong."""
    answers = read_answers(make_run("val", [None, None]))
    assert answers[0].image == answers[1].image
    assert judged(answers, tmp_path)[1] == pytest.approx(1)
    swapped = [answers[0].truths, answers[1].truths]
    crossed = [replace(answer, truths=truth) for answer, truth in zip(answers, reversed(swapped), strict=True)]
    assert judged(crossed, tmp_path)[1] == 0


def test_what_cannot_be_written_is_refused(make_run: MakeRun) -> None:
    answers = read_answers(make_run("val", [None, None]))
    with pytest.raises(DataError, match="the truth of 1 of 2"):
        coco_results([answers[0], replace(answers[1], truths=None)])
    with pytest.raises(DataError, match=r"the size of .* is not known"):
        coco_results([replace(answers[0], size=None)])
