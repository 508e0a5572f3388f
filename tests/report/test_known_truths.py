"""Doubtful and trusted truths: which questions lists are about, and figures with and without them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from egm.errors import DataError
from egm.journal import Header, Record
from egm.report.grid import Grid
from egm.report.known_truths import KnownTruths, known_truths_grid, read_known_truths
from egm.report.runs import Run

from ..datasets import benchmark_files as files
from .conftest import MakeRecord

SPLIT = "refcoco/val"
OFF = (300.0, 300.0, 310.0, 310.0)


def run(records: Sequence[Record]) -> Run:
    return Run(
        "mine", Header("m", {"name": "qwen3_vl"}, {}, {}, {SPLIT: {"n": len(records)}}), records, {SPLIT: len(records)}
    )


@pytest.fixture
def answers(record: MakeRecord) -> Run:
    """Four questions about two pictures; the first two are answered rightly."""
    pictures = ["COCO_train2014_000000000001.jpg", "COCO_train2014_000000000002.jpg"]
    return run(
        [
            record(f"v/{n}", pictures[n // 2], split=SPLIT, phrase=f"Cup {n}.", **({} if n < 2 else {"box": OFF}))
            for n in range(4)
        ]
    )


def cells(grid: Grid) -> dict[str, list[str]]:
    """Figure and count of each line."""
    lines = grid.sections[0][1]
    return {
        line.name: [line.cells[0].text, count.cells[0].text]
        for line, count in zip(lines[::2], lines[1::2], strict=True)
    }


def reviewed(path: Path, *quality: int, box: Sequence[float] = (0, 0, 100, 100)) -> Path:
    pictures = [
        {
            "id": n,
            "file_name": f"COCO_train2014_{n // 2 + 1:012}.jpg",
            "caption": f"cup  {n}",
            "original_id": n // 2 + 1,
            "height": 480,
            "width": 640,
        }
        for n in range(len(quality))
    ]
    boxes = [{"id": n, "image_id": n, "bbox": list(box), "caption_quality": value} for n, value in enumerate(quality)]
    return files.write_json(path, {"images": pictures, "annotations": boxes, "categories": []})


@pytest.mark.parametrize("quality", ["0", True, 0.5])
def test_a_quality_that_is_no_number_is_refused(answers: Run, tmp_path: Path, quality: object) -> None:
    path = reviewed(tmp_path / "a.json", 1, 0)
    content = json.loads(path.read_text())
    content["annotations"][1]["caption_quality"] = quality
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"image 2: caption_quality .* is not a whole number"):
        read_known_truths([answers], doubtful=[path])


def test_marks_of_an_editor_are_no_part_of_the_ids(answers: Run, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbfv/2\r\n\r\nv/3")
    assert read_known_truths([answers], doubtful=[tmp_path / "ids.txt"]).doubtful == {(SPLIT, "v/2"), (SPLIT, "v/3")}


@pytest.mark.parametrize("form", ["txt", "json"])
def test_ids_are_left_out_and_shown_alone(answers: Run, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"ids.{form}"
    ids = ["v/2", "v/3", "elsewhere/1"]
    path.write_text("\n".join(["", *ids]) if form == "txt" else json.dumps(ids))
    known = read_known_truths([answers], doubtful=[path])
    assert known == KnownTruths(frozenset({(SPLIT, "v/2"), (SPLIT, "v/3")}))
    assert cells(known_truths_grid([answers], known)) == {
        "all questions": ["50.00", "4"],
        "without the doubtful ones": ["100.00", "2"],
        "the doubtful ones alone": ["0.00", "2"],
    }


def test_a_reviewed_file_doubts_what_it_gives_no_quality(answers: Run, tmp_path: Path) -> None:
    known = read_known_truths([answers], doubtful=[reviewed(tmp_path / "a.json", 1, 0, 1, 0)])
    assert known.doubtful == {(SPLIT, "v/1"), (SPLIT, "v/3")}
    # A truth elsewhere in the picture is another question in the same words.
    with pytest.raises(DataError, match="finds none of the questions doubtful"):
        read_known_truths([answers], doubtful=[reviewed(tmp_path / "b.json", 0, 0, 0, 0, box=(200, 200, 50, 50))])


def test_trusted_questions_are_held_against_both_boxes(record: MakeRecord, tmp_path: Path) -> None:
    files.refcoco_m(tmp_path)
    truth = (1.0, 2.0, 11.0, 32.0)  # as RefCOCO has it, half again as high
    questions = [
        record(
            "v/1", "COCO_train2014_000000000000.jpg", split=SPLIT, phrase="left cup 0", truth=truth, box=(1, 2, 11, 16)
        ),
        record("v/2", "COCO_train2014_000000000001.jpg", split=SPLIT, phrase="left cup 0", truth=truth),
        record("v/3", "COCO_train2014_000000000001.jpg", split=SPLIT, phrase="something else", truth=truth),
    ]
    found = run(questions)
    known = read_known_truths([found], trusted=[tmp_path / "refcoco-m" / "data" / "validation-00000-of-00002.parquet"])
    assert known.trusted is not None
    assert set(known.trusted) == {(SPLIT, "v/1"), (SPLIT, "v/2")}
    assert cells(known_truths_grid([found], known)) == {
        "all questions": ["66.67", "3"],
        "the trusted ones": ["50.00", "2"],
        "the trusted ones, against their list's boxes": ["100.00", "2"],
    }


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "nothing/1", "names none of the questions, such as 'nothing/1'"),
        ("a.txt", "\n", "holds no ids"),
        ("a.txt", "v/2\n\udcff", "is not UTF-8: invalid start byte at byte 4"),
        ("a.json", "[]", "holds no ids"),
        ("a.json", "[1.5]", "item 1: 1.5 is no id"),
        ("a.json", "[", "a.json"),
        ("a.json", '[{"image": "a", "sent": "b"}]', "item 1"),
        ("a.csv", "v/1", "is no list of doubtful truths"),
    ],
)
def test_bad_lists_are_named(answers: Run, tmp_path: Path, name: str, content: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(DataError) as caught:
        read_known_truths([answers], doubtful=[path])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_a_review_and_one_that_is_not_there(answers: Run, tmp_path: Path) -> None:
    plain = reviewed(tmp_path / "a.json", 1)
    content = json.loads(plain.read_text())
    del content["annotations"][0]["caption_quality"]
    plain.write_text(json.dumps(content))
    with pytest.raises(DataError, match="caption_quality is missing"):
        read_known_truths([answers], doubtful=[plain])
    with pytest.raises(DataError, match="there is no list at"):
        read_known_truths([answers], doubtful=[tmp_path / "none.txt"])
    rows = files.write_json(tmp_path / "b.json", [{"image": "x.jpg", "sent": "y", "bbox": [1, 2, 3, 4]}])
    with pytest.raises(DataError, match="holds none of the questions"):
        read_known_truths([answers], trusted=[rows])


def test_none_and_many_are_found_and_scored_anew(record: MakeRecord, tmp_path: Path) -> None:
    """A list may correct how many boxes there are, and a set's answer is then held against all of them."""
    one, two, far = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (40.0, 40.0, 60.0, 60.0)

    def asked(name: str, truths: Sequence[Sequence[float]], answered: Sequence[Sequence[float]], iou: float) -> Record:
        several = len(truths) != 1
        facts: dict[str, Any] = {"truths": tuple(truths) if several else None, "iou": iou, "split": SPLIT}
        answer = {"box": answered[0] if answered else None, "boxes": tuple(answered) or None}
        return Record(name, "1.jpg", name, None if several else truths[0], expect="all", **facts, **answer)

    found = run(
        [
            asked("both", [one], [one, two], 0.0),  # the second was forgotten
            asked("gone", [far], [], 0.0),  # nothing matches
            asked("right", [one, two], [two, one], 1.0),
            asked("moved", [one, two], [one], 0.0),  # there is one
            record("one", "1.jpg", split=SPLIT, phrase="gone", truth=far),  # asks for a box, so the list is no answer
        ]
    )
    lists = {"both": [one, two], "gone": [], "right": [one, two], "moved": [one]}
    rows = [
        {"image": "1.jpg", "sent": name, "expect": "all", "bboxes": boxes, "width": 99, "height": 99}
        for name, boxes in lists.items()
    ]
    trusted = files.write_json(tmp_path / "a.json", rows)
    known = read_known_truths([found], trusted=[trusted])
    assert known.trusted is not None
    assert {key[1] for key in known.trusted} == {"both", "gone", "right", "moved"}
    shown = cells(known_truths_grid([found], known))
    assert shown["the trusted ones"] == ["25.00", "4"]
    assert shown["the trusted ones, against their list's boxes"] == ["100.00", "4"]
    twice = [*rows, {**rows[1], "bboxes": [one]}]  # which of the two is it?
    ambiguous = read_known_truths([found], trusted=[files.write_json(tmp_path / "b.json", twice)])
    assert ambiguous.trusted is not None
    assert (SPLIT, "gone") not in ambiguous.trusted


def test_questions_that_nothing_matches_may_be_doubted(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"split": SPLIT, "expect": "any", "truths": (), "iou": 1.0}
    records = [Record(f"v/{n}", "1.jpg", f"cup {n}", None, **facts) for n in range(2)]
    shown = [{"id": n, "file_name": "1.jpg", "caption": f"cup {n}", "height": 480, "width": 640} for n in range(2)]
    boxes = [
        {"id": n, "image_id": n, "bbox": [0, 0, 9, 9], "negative_type": "attribute", "caption_quality": n}
        for n in range(2)
    ]
    path = files.write_json(tmp_path / "a.json", {"images": shown, "annotations": boxes, "categories": []})
    known = read_known_truths([run(records)], doubtful=[path])
    assert known.doubtful == {(SPLIT, "v/0")}
    assert cells(known_truths_grid([run(records)], known))["without the doubtful ones"] == ["100.00", "1"]
