"""What is read of a run and of `egm ground --json`, and where pictures are found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from egm.boxes import Box
from egm.datasets.synthetic import SynthRef
from egm.doors.answers import PictureFiles, read_answers, with_saved_pictures
from egm.errors import DataError, ImageError
from egm.journal import read_journal
from egm.types import Failure, Grounding, LabelledBox

from .conftest import MakeRun


def line(**values: object) -> str:
    row = {
        "image": "a.png",
        "model": "m",
        **Grounding(
            Box(1, 2, 30, 40), None, boxes=(LabelledBox(Box(1, 2, 30, 40)),), phrase="x", size=(64, 48)
        ).to_dict(),
    }
    return json.dumps({**row, **values}) + "\n"


def test_a_run_is_told_record_by_record(make_run: MakeRun) -> None:
    run = make_run("val", [None, "no idea</think>nothing", None])
    answers = read_answers(run)
    _, records = read_journal(run)
    assert [answer.id for answer in answers] == [record.id for record in records]
    by_id = {answer.id: answer for answer in answers}
    for record in records:
        answer = by_id[record.id]
        assert [box.corners for box in answer.boxes] == ([] if record.box is None else [record.box])
        assert answer.truths == (Box(*record.truth),) if record.truth else False
        assert (answer.failure, answer.iou, answer.model) == (record.failure, record.iou, "replayed")
    assert sum(answer.failure is not None for answer in answers) == 1


def test_a_run_that_has_not_ended_is_refused_unless_that_is_allowed(make_run: MakeRun) -> None:
    journal = make_run("val", [None, None]) / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="incomplete: 1 of 2"):
        read_answers(journal)
    assert len(read_answers(journal, allow_partial=True)) == 1


def test_a_box_that_knows_its_confidence_keeps_it(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    box = {"box": [1, 2, 30, 40], "confidence": 0.25}
    file.write_text(line(confidence=None, boxes=[box]) + line(confidence=0.5, boxes=[box]) + line(confidence=None))
    assert [answer.confidences for answer in read_answers(file)] == [(0.25,), (0.5,), (None,)]


def test_what_ground_prints_is_read(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    none = Grounding(None, None, expect="any", phrase="y", size=(64, 48))
    failed = Grounding(None, Failure.NO_BOX, phrase="z", size=(64, 48))
    rows = [{"image": "a.png", "amodal": False, "model": "m", **each.to_dict()} for each in (none, failed)]
    file.write_text(line(confidence=0.5) + "".join(json.dumps(row) + "\n" for row in rows))
    found = read_answers(file)
    assert [answer.boxes for answer in found] == [(Box(1, 2, 30, 40),), (), ()]
    assert [answer.failure for answer in found] == [None, None, "no_box"]
    assert (found[0].confidences, found[0].truths, found[0].size) == ((0.5,), None, (64, 48))
    assert len({answer.id for answer in found}) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no answers"),
        ("[1]\n", "line 1: must be an object"),
        (line(box=[1, 2, 3]), r"line 1: box \[1, 2, 3\] is not x1, y1, x2, y2"),
        (line() + line(size=[0, 3]), r"line 2: width 0 and height 3 are not whole numbers of pixels"),
        (line(size=[10**400, 3]), r"line 1: width 1000.* are not whole numbers of pixels"),
        (line(size=[3]), r"line 1: size \[3\] is not width and height in pixels"),
        (line(failure="no_box"), "line 1: has a box, and the failure 'no_box'"),
        (line(phrase=" "), "line 1: has no phrase"),
        (line(boxes=3), "has no box and boxes"),
        (line(expect="some"), "expect 'some' is none of one, any, all"),
        (line(confidence=7), "number from 0 to 1"),
        (line(failure=1), "must be words"),
    ],
)
def test_what_is_no_answer_is_refused_by_line(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(content)
    with pytest.raises(DataError, match=said):
        read_answers(file)


def test_what_is_not_there_or_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is nothing at"):
        read_answers(tmp_path / "gone")
    with pytest.raises(DataError, match="holds no journal"):
        read_answers(tmp_path)


def test_pictures_stay_in_their_folder(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (64, 48)).save(images / "a.png")
    Image.new("RGB", (64, 48)).save(tmp_path / "secret.png")
    (images / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "answers.jsonl").write_text(
        line() + line(image="../secret.png") + line(image="link.png") + line(image="http://a/b.png") + line(size=[9, 9])
    )
    good, above, link, url, other = read_answers(tmp_path / "answers.jsonl")
    find = PictureFiles(images, None)
    assert find(good) == (images / "a.png", (64, 48))
    for bad in (above, link):
        with pytest.raises(DataError, match="lies outside"):
            find(bad)
    with pytest.raises(DataError, match="is a URL, and nothing is fetched"):
        find(url)
    with pytest.raises(ImageError, match="the row says 9 x 9, the picture is 64 x 48"):
        find(other)


def test_drawn_pictures_are_saved_once_and_named(make_run: MakeRun, tmp_path: Path) -> None:
    answers = read_answers(make_run("val", [None, None]))
    with pytest.raises(DataError, match="say where to save it with --pictures"):
        PictureFiles(tmp_path, None)(answers[0])
    named = with_saved_pictures(answers, tmp_path / "saved")
    assert len({answer.image for answer in named}) == 1
    with Image.open(tmp_path / "saved" / named[0].image) as picture:
        assert picture.tobytes() == Image.fromarray(SynthRef("val").scene(0).pixels).tobytes()
    assert with_saved_pictures(named, None) == named
    assert PictureFiles(tmp_path / "saved", None)(named[0])[0] == tmp_path / "saved" / named[0].image
    nowhere = [replace(answers[0], image=f"{answers[0].split}:7")]  # as pictures inside a dataset's file are called
    with pytest.raises(DataError, match="is no file"):
        with_saved_pictures(nowhere, None)
