"""JSON formats: what each row means, told by its keys; bad rows named by file and row; images confined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from egm.boxes import Box
from egm.datasets import Dataset, open_dataset
from egm.datasets.question_phrases import phrase_of
from egm.errors import DataError

MINIGPT4 = {
    "img_id": "COCO_train2014_000000580957_4",
    "sents": "a bowl",
    "bbox": [10, 20, 30, 40],
    "height": 428,
    "width": 640,
}
VLM_R1 = {"image": "coco/a.jpg", "problem": "the cup", "solution": [1, 2, 30, 40], "height": 50, "width": 60}
ASK = "Please provide the bounding box coordinate of the region this sentence describes: <ref>the cup</ref>"
SFT = {
    "id": -1,
    "image": "coco/a.jpg",
    "height": 500,
    "width": 2000,
    "conversations": [
        {"from": "human", "value": f"<image>\n{ASK}"},
        {"from": "gpt", "value": "<ref>the cup</ref><box>[[100, 200, 300, 400]]</box>"},
    ],
}
PLAIN = {"image": "a.png", "sent": "the cup", "bbox": [1, 2, 30, 40], "height": 50, "width": 60}
QWEN_TURNS = [
    {
        "from": "human",
        "value": '<image>\nLocate the "big" cup amodally, output its bbox coordinates using JSON format.',
    },
    # The label is not escaped, as in the files that are out there.
    {
        "from": "gpt",
        "value": 'It is [1, 2].\n</think>\n\n[{"bbox_2d": [-100, 200, 300, 1400], "label": "the "big" cup"}]',
    },
]


def opened(tmp_path: Path, rows: Any, name: str = "rows.json", images: Path | None = None) -> Dataset:
    path = tmp_path / name
    lines = "\n".join(json.dumps(row) for row in rows) if name.endswith(".jsonl") else json.dumps(rows)
    path.write_text(lines, encoding="utf-8")
    return open_dataset(path, images=images)


def test_minigpt4_boxes_are_xywh_and_the_image_is_named_without_the_referent(tmp_path: Path) -> None:
    [sample] = opened(tmp_path, [MINIGPT4])
    assert sample.image == Path("COCO_train2014_000000580957.jpg")
    assert (sample.phrase, sample.box, sample.size) == ("a bowl", Box(10, 20, 40, 60), (640, 428))
    assert (sample.id, sample.meta["image_id"]) == ("rows/1", 580957)


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_vlm_r1_boxes_are_xyxy_pixels(tmp_path: Path, name: str) -> None:
    asked = VLM_R1 | {"problem": ASK}
    first, second, third = opened(tmp_path, [VLM_R1, VLM_R1 | {"normal_caption": "a mug"}, asked], name, tmp_path)
    assert (first.phrase, first.box, first.image) == ("the cup", Box(1, 2, 30, 40), tmp_path.resolve() / "coco/a.jpg")
    assert (second.phrase, third.phrase) == ("a mug", "the cup")


def test_sft_boxes_are_scaled_by_the_size_of_the_row(tmp_path: Path) -> None:
    plain, reasoned = opened(tmp_path, [SFT, SFT | {"conversations": QWEN_TURNS}])
    assert (plain.phrase, plain.box, plain.amodal) == ("the cup", Box(200, 100, 600, 200), False)
    assert plain.rationale is None
    assert (reasoned.phrase, reasoned.amodal, reasoned.rationale) == ('the "big" cup', True, "It is [1, 2].")
    assert reasoned.box == Box(-200, 100, 600, 700)  # never clipped
    assert (plain.id, reasoned.id) == ("rows/1", "rows/2")  # not -1


def test_a_format_is_told_by_its_keys_not_by_its_numbers(tmp_path: Path) -> None:
    """The same four numbers mean three things."""
    numbers = [100, 200, 300, 400]
    size = {"height": 500, "width": 2000}
    boxes = [
        opened(tmp_path, [row])[0].box
        for row in (
            MINIGPT4 | {"bbox": numbers} | size,
            VLM_R1 | {"solution": numbers} | size,
            SFT,
            {"image": "a.png", "sent": "the cup", "bbox": numbers, **size},
        )
    ]
    assert boxes == [Box(100, 200, 400, 600), Box(*numbers), Box(200, 100, 600, 200), Box(*numbers)]


@pytest.mark.parametrize("other", [MINIGPT4, VLM_R1, SFT])
def test_a_file_holds_rows_of_one_form(tmp_path: Path, other: dict[str, Any]) -> None:
    said = r"row 2: has no .*; it is of another form than the first row \(.+\): keep one a file"
    with pytest.raises(DataError, match=said):
        opened(tmp_path, [PLAIN, other])


@pytest.mark.parametrize(
    ("good", "change", "says"),
    [
        (MINIGPT4, {"img_id": "580957"}, "is not a COCO image and a number"),
        (MINIGPT4, {"sents": ""}, "has no sents"),
        (MINIGPT4, {"bbox": [1, 2, 0, 4]}, "is not x, y, width, height"),
        (MINIGPT4, {"bbox": [1, 2, "3", 4]}, "is not a number"),
        (MINIGPT4, {"height": 0}, "are not whole numbers"),
        (VLM_R1, {"solution": [1, 2, 3]}, "solution .* is not x1, y1, x2, y2"),
        (VLM_R1, {"image": "../a.jpg"}, "lies outside"),
        (VLM_R1, {"solution": [1, 2, 10**400, 4]}, r"10000.*\.\.\. is not a number"),
        (VLM_R1, {"solution": [1, 2, float("inf"), 4]}, "is not a number"),
        (VLM_R1, {"solution": [False, True, 2, 3]}, "is not a number"),
        (VLM_R1, {"solution": None}, "is not x1, y1, x2, y2"),
        (SFT, {"width": 10**400}, "are not whole numbers"),
        (VLM_R1, {"width": 640.5}, "are not whole numbers"),
        (VLM_R1, {"width": True}, "are not whole numbers"),
        (VLM_R1, {"image": 5}, "image must be a relative path, not 5"),
        (VLM_R1, {"image": ["a.png", "b.png"]}, "holds 2 pictures: one is needed"),
        (VLM_R1, {"problem": "<image><image>the cup"}, "asks about 2 pictures"),
        (SFT, {"image": ["a.png"] * 3}, "holds 3 pictures"),
        (SFT, {"conversations": [{"from": "human", "value": f"<image>\n<image>\n{ASK}"}, QWEN_TURNS[1]]}, "2 pictures"),
        (PLAIN, {"image": ["a.png", "b.png"]}, "holds 2 pictures"),
        (PLAIN, {"id": [1]}, r"id \[1\] is neither words nor a whole number"),
        (PLAIN, {"id": True}, "id True is neither"),
        (PLAIN, {"amodal": "false"}, "amodal 'false' is neither true nor false"),
        (SFT, {"width": None, "height": None}, "needs width and height"),
        (SFT, {"conversations": SFT["conversations"][:1]}, "must hold two turns"),  # type: ignore[index]
        (SFT, {"conversations": SFT["conversations"][::-1]}, "a turn of human and one of gpt"),  # type: ignore[index]
        (SFT, {"conversations": [QWEN_TURNS[0], {"from": "gpt", "value": "[1, 2, 3, 4] </think> none"}]}, "no boxes"),
        (SFT, {"conversations": [{"from": "human", "value": "Hello?"}, QWEN_TURNS[1]]}, "none of the known wordings"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, good: dict[str, Any], change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        opened(tmp_path, [good, good | change])
    assert "rows.json row 2: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", [PLAIN, VLM_R1, MINIGPT4, SFT])
def test_sides_may_be_written_as_floats(tmp_path: Path, row: dict[str, Any]) -> None:
    [sample] = opened(tmp_path, [row | {"width": float(row["width"]), "height": float(row["height"])}])
    assert sample.size == (row["width"], row["height"])
    assert all(isinstance(side, int) for side in sample.size or ())


def test_a_list_of_one_picture_is_that_picture(tmp_path: Path) -> None:
    assert [s.image for s in opened(tmp_path, [PLAIN | {"image": ["a.png"]}, PLAIN])] == [Path("a.png")] * 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([{"image": "a.jpg", "caption": "x"}], "caption, image, which is no known format: write rows .* MiniGPT-4"),
        ({"rows": []}, "no known format"),
        ([1], "row 1: is not an object"),
        ([], "holds no rows"),
        ("text", "must hold a list"),
    ],
)
def test_a_file_that_is_not_recognised_is_refused(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        opened(tmp_path, content)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name, content in {"a.csv": b"a,b", "a.json": b"{", "a.parquet": b"no", "a.zip": b"no", "a.p": b"no"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            open_dataset(tmp_path / name)
        assert name in str(caught.value) or "instances.json" in str(caught.value)


def test_two_rows_cannot_share_an_id(tmp_path: Path) -> None:
    row = {"image": "a.png", "sent": "the cup", "id": "one"}
    with pytest.raises(DataError, match="'one' twice"):
        opened(tmp_path, [row, row], "rows.jsonl")


def test_images_stay_inside_their_folder_once_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").symlink_to(tmp_path)
    with pytest.raises(DataError, match="lies outside"):
        opened(tmp_path, [VLM_R1 | {"image": "out/a.jpg"}], images=tmp_path / "in")
    inside = opened(tmp_path, [VLM_R1 | {"image": str(tmp_path / "in" / "a.jpg")}], images=tmp_path / "in")
    assert inside[0].image == (tmp_path / "in" / "a.jpg").resolve()


def test_a_dataset_is_a_sequence(tmp_path: Path) -> None:
    data = opened(tmp_path, [VLM_R1, VLM_R1 | {"problem": "a plate"}])
    assert [sample.phrase for sample in data] == ["the cup", "a plate"]
    assert (len(data), data[-1].phrase, [s.phrase for s in data[:1]]) == (2, "a plate", ["the cup"])
    with pytest.raises(IndexError):
        data[2]


@pytest.mark.parametrize(
    ("question", "phrase", "amodal"),
    [
        ("Locate a cup, on top, output its bbox coordinates using JSON format", "a cup, on top", False),
        (
            "Please provide the amodal bounding box coordinate of the region this sentence describes: a cup.",
            "a cup",
            True,
        ),
        ('Locate every object that matches the description "a cup" in the image. Report bbox.', "a cup", False),
        ("<ref>amodal cup</ref>", "amodal cup", False),
        ("<image>\nLocate a cup in this image and output the bbox coordinates in JSON format.", "a cup", False),
        (
            "Locate a cup in the sink in the image and output its bbox coordinates using JSON format",
            "a cup in the sink",
            False,
        ),
        ("Locate a cup, report its bbox coordinates in JSON format.", "a cup", False),
        ("Outline the position of a cup and output all the coordinates in JSON format.", "a cup", False),
        ("Outline the position of a cup and output all the bbox coordinates in JSON format.", "a cup", False),
        ("Detect a cup in the image and output all the bbox coordinates in JSON format.", "a cup", False),
        (
            'Locate every instance that belongs to the following categories: "a cup". Report bbox coordinates in JSON '
            "format.",
            "a cup",
            False,
        ),
    ],
)
def test_phrases_come_out_of_their_questions(question: str, phrase: str, amodal: bool) -> None:
    assert phrase_of(question) == (phrase, amodal)
