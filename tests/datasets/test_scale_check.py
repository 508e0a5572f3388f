"""Boxes on another scale than their file's: told where there is a sign of them, and only there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from egm.datasets import open_dataset
from egm.datasets.scale_check import scale_notes

SIZE = (640, 480)


def notes(tmp_path: Path, *rows: tuple[tuple[int, ...], str], size: tuple[int, int] = SIZE) -> list[str]:
    def row(box: tuple[int, ...], rationale: str) -> dict[str, Any]:
        question = "Locate a cup, output its bbox coordinates using JSON format."
        answer = f'{rationale}\n</think>\n[{{"bbox_2d": {list(box)}, "label": "a cup"}}]'
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        return {"image": "a.png", "width": size[0], "height": size[1], "conversations": turns}

    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row(*given)) + "\n" for given in rows))
    return scale_notes(open_dataset(path))


def test_a_rationale_on_another_scale_is_told_by_row(tmp_path: Path) -> None:
    sound = ((500, 500, 750, 1000), "The cup at [500, 500, 750, 1000], not the one at (320, 240, 480, 470).")
    pixels_told = ((500, 500, 750, 1000), "The cup at [320, 240, 480, 480].")
    pixels_answered = ((320, 240, 480, 480), "Not [0, 0, 9, 9] but [500, 500, 750, 1000].")
    other_box = ((500, 500, 750, 1000), "The one right of [100, 100, 200, 300].")
    bare = ((500, 500, 750, 1000), "It is there.")
    assert notes(tmp_path, sound, other_box, bare) == []
    for torn in (pixels_told, pixels_answered):
        [note] = notes(tmp_path, sound, torn, bare)
        assert note.startswith("in 1 rows (rows/2) the rationale gives the answer's box on another scale")
    [note] = notes(tmp_path, pixels_told, pixels_answered)
    assert note.startswith("in 2 rows (rows/1, ...)")
    assert notes(tmp_path, pixels_told, size=(1000, 1000)) == []  # another box, as both scales are one


def test_boxes_that_would_all_be_sound_as_pixels_are_told(tmp_path: Path) -> None:
    inside, beyond = ((100, 100, 640, 480), "It is there."), ((100, 100, 641, 300), "It is there.")
    [note] = notes(tmp_path, *[inside] * 20)
    assert note.startswith("none of 20 boxes would leave its picture if it were in pixels")
    assert notes(tmp_path, *[inside] * 19) == []  # too few to tell
    assert notes(tmp_path, *[inside] * 40, beyond) == []
    assert notes(tmp_path, *[inside] * 20, size=(1000, 800)) == []  # hardly a box could leave it


def test_other_formats_are_in_pixels_by_their_form(tmp_path: Path) -> None:
    row = {"image": "a.png", "sent": "a cup", "bbox": [100, 100, 640, 480], "width": 640, "height": 480}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row | {"id": number}) + "\n" for number in range(20)))
    assert scale_notes(open_dataset(tmp_path / "rows.jsonl")) == []


@pytest.mark.parametrize(("box", "told"), [([0.1, 0.2, 0.5, 1.0], True), ([0, 0, 1, 1], True), ([0, 0, 1, 2], False)])
def test_boxes_within_one_are_told_in_any_format(tmp_path: Path, box: list[float], told: bool) -> None:
    sized = {"width": 640, "height": 480}
    turns = [
        {"from": "human", "value": "Locate a cup, output its bbox coordinates using JSON format."},
        {"from": "gpt", "value": f'[{{"bbox_2d": {box}, "label": "a cup"}}]'},
    ]
    forms = {
        "pixels": [
            {"image": "a.png", "sent": "a cup", "bbox": box, **sized},
            {"image": "a.png", "sent": "a cup", "bbox": box},
        ],
        "0-1000": [{"image": "a.png", "conversations": turns, **sized}],
    }
    for scale, rows in forms.items():
        for row in rows:
            whole = json.dumps(row | {"id": "sound"}).replace(str(box), "[10, 10, 300, 400]")
            (tmp_path / "rows.jsonl").write_text(f"{whole}\n{json.dumps(row | {'id': 'odd'})}\n")
            found = scale_notes(open_dataset(tmp_path / "rows.jsonl"))
            assert ["1 of 2 boxes lie within 0 to 1" in note and f"on the scale {scale}" in note for note in found] == [
                True
            ] * told
