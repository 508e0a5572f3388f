"""Which sample a row answers: what is written in full decides, and what fits several or contradicts is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from egm.boxes import Box
from egm.errors import DataError
from egm.report.predictions import read_records
from egm.types import Sample

LEFT, RIGHT = [0.0, 0.0, 50.0, 50.0], [50.0, 50.0, 100.0, 100.0]


def asked(image: str, phrase: str, box: list[float], name: str = "", split: str = "x") -> tuple[str, Sample]:
    return split, Sample(name or f"{image}/{phrase}", Path(image), phrase, Box(*box), (100, 100))


def ious(tmp_path: Path, samples: list[tuple[str, Sample]], *rows: dict[str, Any], partial: bool = True) -> list[float]:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [record.iou for record in read_records(path, samples=samples, partial=partial)]


FOLDERS = [asked("/data/a/1.png", "dog", LEFT), asked("/data/b/1.png", "dog", RIGHT)]
CASES = [asked("1.png", "letter A", LEFT), asked("1.png", "letter a", RIGHT)]
STOPS = [asked("1.png", "letter A", LEFT), asked("1.png", "letter A.", RIGHT)]
COPIES = [asked("000000000012.jpg", "dog", LEFT), asked("000000000012_flipped.jpg", "dog", RIGHT)]
ENDINGS = [asked("a/1.png", "dog", LEFT), asked("a/1.jpg", "dog", RIGHT)]
IDS = [asked("1.png", "dog", LEFT, "7", "s1"), asked("2.png", "cat", RIGHT, "7", "s2")]
SPLITS = [asked("1.png", "dog", LEFT, split="s1"), asked("1.png", "dog", RIGHT, split="s2")]


@pytest.mark.parametrize(
    ("samples", "right", "left"),
    [
        (FOLDERS, {"image": "b/1.png", "phrase": "dog"}, {"image": "a/1.png", "phrase": "dog"}),
        (FOLDERS, {"image": "/elsewhere/b/1.jpg", "phrase": "DOG"}, {"image": r"c:\x\a\1.png", "phrase": "dog"}),
        (CASES, {"image": "1.png", "phrase": "letter a"}, {"image": "1.png", "phrase": "letter A"}),
        (CASES, {"image": "1.png", "phrase": " letter  a. "}, {"image": "/y/1.jpg", "phrase": "letter A"}),
        (CASES, {"phrase": "letter A", "truth": RIGHT}, {"phrase": "letter A", "truth": LEFT}),
        (STOPS, {"image": "1.png", "phrase": "letter A."}, {"image": "1.png", "phrase": "letter A"}),
        (
            COPIES,
            {"image": "z/000000000012_flipped.jpg", "phrase": "dog"},
            {"image": "000000000012.jpg", "phrase": "dog"},
        ),
        (ENDINGS, {"image": "a/1.jpg", "phrase": "dog"}, {"image": "1.png", "phrase": "dog"}),
        (IDS, {"id": "7", "phrase": "cat"}, {"id": "7", "phrase": "dog"}),
        (IDS, {"id": "7", "image": "2.png"}, {"id": "7", "image": "x/1.png"}),
        (IDS, {"id": "7", "truth": RIGHT}, {"id": "7", "truth": LEFT}),
    ],
)
def test_what_is_written_in_full_decides_in_any_order(
    tmp_path: Path, samples: list[tuple[str, Sample]], right: dict[str, Any], left: dict[str, Any]
) -> None:
    rows = [{**right, "box": RIGHT}, {**left, "box": LEFT}]
    assert ious(tmp_path, samples, *rows, partial=False) == [1.0, 1.0]
    assert ious(tmp_path, samples, *reversed(rows), partial=False) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("samples", "row", "message"),
    [
        (FOLDERS, {"image": "1.png", "phrase": "dog"}, "line 1 fits several samples, such as '/data/a/1.png/dog'"),
        (FOLDERS, {"image": "/c/1.png", "phrase": "dog"}, "fits several samples"),
        (CASES, {"image": "1.png", "phrase": "LETTER A"}, "fits several samples"),
        (COPIES, {"image": "000000000012.png", "phrase": "dog"}, "fits several samples"),
        (IDS, {"id": "7"}, "fits several samples, such as '7' of s1 and '7' of s2"),
        (SPLITS, {"image": "1.png", "phrase": "dog"}, "or score one dataset at a time"),
        (IDS, {"id": "7", "phrase": "cow"}, "its phrase is 'cow', and that of '7' is 'dog': is it another dataset"),
        (IDS, {"id": "7", "image": "3.png"}, "its image is '3.png', and that of '7' is '1.png'"),
        (IDS, {"id": "7", "phrase": "dog", "image": "2.png"}, "its image is '2.png', and that of '7' is '1.png'"),
        (IDS, {"id": "7", "phrase": "dog", "truth": RIGHT}, "its true box is not that of '7'"),
        ([*FOLDERS[:1], asked("/data/b/1.png", "cat", RIGHT)], {"image": "b/1.png", "phrase": "dog"}, "has no sample"),
        (
            [asked("a/1.png", "dog", LEFT), asked("b/1.jpg", "dog", RIGHT)],
            {"image": "x/a/1.jpg", "phrase": "dog"},
            "may be 'b/1.jpg' or 'a/1.png': give its full name",
        ),
    ],
)
def test_what_fits_several_or_contradicts_is_refused(
    tmp_path: Path, samples: list[tuple[str, Sample]], row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        ious(tmp_path, samples, {**row, "box": LEFT})


@pytest.mark.parametrize("image", [12, "12", "data:image/png;base64,iVBO/Rw0", "A/" * 4096, "", " "])
def test_a_picture_that_is_a_number_or_the_picture_itself_contradicts_nothing(tmp_path: Path, image: Any) -> None:
    samples = [asked("COCO_train2014_000000000012.jpg", "dog", LEFT, "7")]
    assert ious(tmp_path, samples, {"id": 7, "phrase": "dog", "image": image, "box": LEFT}) == [1.0]


def test_words_of_one_referent_that_differ_in_case_are_answered_once_each(tmp_path: Path) -> None:
    samples = [asked("1.png", "Dog", LEFT), asked("1.png", "dog.", LEFT)]
    row = {"image": "1.png", "phrase": "dog", "box": LEFT}
    assert ious(tmp_path, samples, row, row, partial=False) == [1.0, 1.0]
    with pytest.raises(DataError, match="line 3 answers what"):
        ious(tmp_path, samples, row, row, row)


def test_rows_with_truths_of_their_own_are_told_apart_by_folder(tmp_path: Path) -> None:
    def keys(*folders: str) -> list[str]:
        path = tmp_path / "p.jsonl"
        row = {"phrase": "dog", "truth": LEFT, "box": LEFT}
        path.write_text("".join(json.dumps({**row, "image": f"{folder}/1.png"}) + "\n" for folder in folders))
        return [record.id for record in read_records(path)]

    assert keys("a", "b") == keys("b", "a")[::-1]
    assert keys("a") == keys("b")  # of one picture called so, the folder is anybody's
