"""Real answers of grounding models: each shape read as a person would, and whole logs scored."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from egm.boxes import Box, iou
from egm.codecs import get_codec
from egm.scoring import score
from egm.types import Failure

Numbers = tuple[float, float, float, float]

INSTRUCT = get_codec("qwen3_vl_instruct")
THINKING = get_codec("qwen3_vl")
PIXELS = get_codec("qwen2_5_vl")
INTERNVL = get_codec("internvl")

# A relative scale of 1000 x 1000 pixels, so that a box reads as the numbers in the text.
THOUSAND = (1000, 1000)
WIDE = (640, 480)
TALL = (480, 640)

# Every row of real_shapes.jsonl, read by hand: row, codec, image as the model saw it, finish reason, the boxes in order
# (the first one answers) or the reason why there is none, the label of the first, the repairs.
READINGS: list[tuple[int, Any, tuple[int, int], str, list[Numbers] | Failure, str | None, tuple[str, ...]]] = [
    (0, PIXELS, WIDE, "stop", [(14, 135, 136, 470)], "man standing far left in orange", ()),
    (
        1,
        PIXELS,
        (640, 640),
        "stop",
        [(56, 387, 249, 618), (0, 370, 100, 560), (284, 427, 392, 644)],
        "urinal",
        (),
    ),
    (2, PIXELS, WIDE, "stop", Failure.REFUSED, None, ()),
    (3, PIXELS, WIDE, "stop", [(14, 135, 136, 470)], "man standing far left in orange.", ()),
    (4, PIXELS, WIDE, "stop", [(14, 135, 136, 470)], "man standing far left in orange.", ("broken_json",)),
    (5, PIXELS, WIDE, "stop", [(0, 134, 644, 415)], "table with bananas.", ()),
    (6, PIXELS, WIDE, "stop", [(207, 231, 334, 315)], "bottom stove.", ()),
    (7, PIXELS, WIDE, "stop", [(0, 314, 225, 476)], "a chair.", ()),
    (8, PIXELS, WIDE, "stop", [(378, 210, 524, 396)], "umpire", ("broken_json",)),
    (9, PIXELS, WIDE, "stop", [(104, 25, 308, 206)], "left screen.", ("broken_json",)),
    (10, PIXELS, WIDE, "stop", [(523, 0, 644, 157)], None, ("broken_json",)),
    (11, PIXELS, WIDE, "stop", [(418, 65, 504, 364)], "right.", ("broken_json",)),
    (12, PIXELS, WIDE, "stop", [(84, 250, 296, 371)], "elephant on the left", ()),
    # The reasoning names (168, 170, 574, 432) too; only the answer is read.
    (13, PIXELS, WIDE, "stop", [(168, 170, 574, 432)], "zebra front.", ()),
    (14, PIXELS, TALL, "stop", [(304, 1, 420, 637)], "the tree in right corner. First", ("broken_json",)),
    (15, PIXELS, WIDE, "stop", [(84, 250, 296, 371), (253, 250, 543, 382)], "elephant on the left", ()),
    (16, PIXELS, WIDE, "stop", [(61, 0, 173, 269)], None, ()),
    (17, PIXELS, WIDE, "stop", [(0, 1, 184, 476)], None, ("broken_json",)),
    # A link with the same box, percent-encoded, follows: it is no second box.
    (
        18,
        PIXELS,
        WIDE,
        "stop",
        [(398, 0, 481, 236)],
        "a bottle wrapped with violet with other bottles.",
        ("broken_json",),
    ),
    (
        19,
        PIXELS,
        WIDE,
        "stop",
        [(137, 40, 220, 235), (137, 40, 220, 235)],
        "a skate boarder doing a trick off the ramp.",
        ("broken_json",),
    ),
    (20, PIXELS, WIDE, "stop", [(0, 38, 241, 145), (187, 69, 644, 339)], "golden dog in back", ()),
    # Cut off inside a link that follows the box: the box is whole.
    (
        21,
        PIXELS,
        WIDE,
        "length",
        [(109, 153, 224, 267)],
        "flowers next to the flowers not in a pot.",
        ("broken_json",),
    ),
    (22, PIXELS, WIDE, "stop", Failure.REFUSED, None, ()),
    (
        23,
        INSTRUCT,
        THOUSAND,
        "stop",
        [(323, 118, 444, 825), (444, 118, 565, 825), (565, 118, 686, 825), (686, 118, 807, 825)],
        "watch",
        (),
    ),
    # The keyboard's box is whole, the mouse's is cut inside its last number and is none.
    (
        24,
        INSTRUCT,
        THOUSAND,
        "length",
        [(195, 138, 617, 480), (663, 399, 917, 657), (254, 584, 569, 657)],
        None,
        ("bbox_key", "broken_json"),
    ),
    (25, INSTRUCT, THOUSAND, "stop", [(734, 0, 999, 243)], None, ()),
    (26, INSTRUCT, THOUSAND, "stop", [(726, 0, 999, 275)], None, ("bare_list",)),
    (
        27,
        INSTRUCT,
        THOUSAND,
        "stop",
        [(165, 400, 233, 502), (513, 454, 570, 556), (349, 680, 401, 780)],
        "each separate gray cube",
        (),
    ),
    (28, PIXELS, WIDE, "stop", [(158, 90, 176, 134)], "white building", ()),
    (29, PIXELS, WIDE, "stop", Failure.REFUSED, None, ()),
    (30, INSTRUCT, THOUSAND, "stop", [(0, 614, 224, 825), (0, 207, 227, 333)], None, ()),
    # A point, and a 3-D box of nine numbers: something else stands where the box should.
    (31, INSTRUCT, THOUSAND, "stop", Failure.MALFORMED, None, ()),
    (32, INSTRUCT, THOUSAND, "stop", Failure.MALFORMED, None, ()),
    # Right in pixels of a large image, and outside 0-1000.
    (33, PIXELS, (1092, 728), "stop", [(135, 114, 1016, 672)], None, ()),
    (33, INSTRUCT, THOUSAND, "stop", Failure.OUT_OF_RANGE, None, ()),
    (34, INSTRUCT, THOUSAND, "stop", [(531, 516, 581, 596)], "击掌", ("other_form",)),
    (35, INSTRUCT, THOUSAND, "length", Failure.TRUNCATED, None, ()),
    # The second corner lies above the first.
    (36, PIXELS, (2000, 1000), "stop", Failure.DEGENERATE, None, ()),
    (37, PIXELS, (2000, 1000), "stop", Failure.TRUNCATED, None, ()),
    # The label is not what was asked; the box is what the model answers all the same.
    (38, PIXELS, WIDE, "stop", [(368, 1, 475, 330)], "man wearing blue shirt and shorts", ()),
    (39, INTERNVL, THOUSAND, "stop", [(253, 231, 733, 787)], "XXX", ()),
    # The placeholder parroted: four of something, but not four numbers.
    (40, INTERNVL, THOUSAND, "stop", Failure.MALFORMED, None, ()),
    # Meant as shares of the image by another family, and no box of thousandths.
    (41, INSTRUCT, THOUSAND, "stop", Failure.OUT_OF_RANGE, None, ()),
    # Another family's tags, whose numbers mean something else.
    (42, INTERNVL, THOUSAND, "stop", Failure.MALFORMED, None, ()),
    # Five numbers, oddly nested: any four of them would be a guess.
    (43, INTERNVL, THOUSAND, "stop", Failure.MALFORMED, None, ()),
    (44, INTERNVL, THOUSAND, "stop", [(253, 231, 733, 787)], None, ("spaces",)),
    (45, INSTRUCT, THOUSAND, "stop", [(181, 461, 818, 510)], None, ("bare_list",)),
    # One cell of 28 below the lower edge: within what models that speak pixels do.
    (46, PIXELS, (364, 448), "stop", [(19, 300, 154, 476)], None, ("bare_list",)),
    (47, INSTRUCT, THOUSAND, "stop", [(336, 163, 717, 200)], None, ("bare_list",)),
    (48, PIXELS, WIDE, "stop", [(50, 117, 346, 168), (50, 248, 163, 270)], None, ()),
    # It gives up in its thinking, and then answers nothing.
    (49, THINKING, THOUSAND, "stop", Failure.NO_BOX, None, ()),
    # All tokens went into thinking, which the server kept to itself.
    (50, THINKING, THOUSAND, "length", Failure.TRUNCATED, None, ()),
]


@pytest.fixture(scope="module")
def shapes(real_data: Callable[[str], Path]) -> list[dict[str, Any]]:
    lines = real_data("model_outputs/real_shapes.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("row", "codec", "size", "finish_reason", "expected", "label", "repairs"),
    READINGS,
    ids=[f"{reading[0]}-{reading[1].name}" for reading in READINGS],
)
def test_each_shape_is_read_as_a_person_would(
    shapes: list[dict[str, Any]],
    row: int,
    codec: Any,
    size: tuple[int, int],
    finish_reason: str,
    expected: list[Numbers] | Failure,
    label: str | None,
    repairs: tuple[str, ...],
) -> None:
    grounding = codec.parse(shapes[row]["text"], size=size, seen_size=size, finish_reason=finish_reason)

    if isinstance(expected, Failure):
        assert (grounding.box, grounding.failure, grounding.boxes) == (None, expected, ())
    else:
        assert [tuple(item.box) for item in grounding.boxes] == [pytest.approx(numbers) for numbers in expected]
        assert (grounding.box, grounding.failure) == (grounding.boxes[0].box, None)
        assert grounding.boxes[0].label == label
    assert grounding.repairs == repairs


def test_no_shape_is_left_out(shapes: list[dict[str, Any]]) -> None:
    assert {reading[0] for reading in READINGS} == set(range(len(shapes)))


def test_the_thinking_is_kept(shapes: list[dict[str, Any]]) -> None:
    assert THINKING.parse(shapes[49]["text"], size=THOUSAND).reasoning == "I can't determine the location."
    assert PIXELS.parse(shapes[13]["text"], size=WIDE).reasoning.startswith(
        "The bounding box coordinates for the zebra"
    )


@pytest.mark.parametrize("row", [25, 26])
def test_the_rows_with_a_truth_hit_it(shapes: list[dict[str, Any]], row: int) -> None:
    shape = shapes[row]
    grounding = INSTRUCT.parse(shape["text"], size=(shape["width"], shape["height"]))
    assert grounding.box is not None
    assert iou(grounding.box, Box(*shape["gt_xyxy"])) > 0.5


# Acc@0.5 in percent and mean IoU of an independent reading of the same logs.
LOGS = [("baseline", 89.4, 0.802), ("sft_500", 87.2, 0.747), ("r1_500", 90.6, 0.807)]


def key_of(phrase: str, box: Box) -> tuple[str, tuple[float, ...]]:
    return phrase.strip().rstrip(".").lower(), tuple(round(value, 2) for value in box)


@pytest.fixture(scope="module")
def image_sizes(real_data: Callable[[str], Path]) -> dict[tuple[str, tuple[float, ...]], tuple[int, int]]:
    rows = json.loads(real_data("refcoco/refcoco_val.json").read_text(encoding="utf-8"))
    return {key_of(row["sents"], Box.from_xywh(row["bbox"])): (row["width"], row["height"]) for row in rows}


@pytest.mark.parametrize(("log", "accuracy", "mean_iou"), LOGS)
def test_real_logs_score_as_they_should(
    real_data: Callable[[str], Path],
    image_sizes: dict[Any, tuple[int, int]],
    log: str,
    accuracy: float,
    mean_iou: float,
) -> None:
    path = real_data(f"model_outputs/rec_results_refcoco_val_qwen2_5vl_3b_instruct_{log}.json.gz")
    results = json.loads(gzip.decompress(path.read_bytes()))["results"]
    scores, resized, repaired = [], [], 0
    for result in results:
        truth = Box(*result["ground_truth"])
        size = image_sizes[key_of(result["question"].split("describes: ")[1], truth)]
        # The logs are in pixels of the original image.
        grounding = PIXELS.parse(result["model_output"], size=size, seen_size=size)
        scores.append(score(grounding, truth))
        resized.append(score(PIXELS.parse(result["model_output"], size=size), truth))
        repaired += bool(grounding.repairs)

    assert len(scores) == 500
    assert 100 * sum(item.hit() for item in scores) / 500 == pytest.approx(accuracy, abs=0.2)
    assert sum(item.iou for item in scores) / 500 == pytest.approx(mean_iou, abs=0.002)
    assert [item.failure for item in scores if item.failure] == []
    assert repaired == 0
    # Read as what they are, pixels of the image after the processor's resize, they fit the truth better still.
    assert sum(item.iou for item in resized) / 500 > mean_iou + 0.005
    assert sum(item.hit() for item in resized) >= sum(item.hit() for item in scores)
    assert [item.failure for item in resized if item.failure] == []


def test_decoys_are_not_read(real_data: Callable[[str], Path]) -> None:
    """Texts with a decoy, and the right reading of each, in a file of their own."""
    lines = real_data("cases/answers_with_decoys.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 40
    for row in map(json.loads, lines):
        codec = INSTRUCT if "instruct" in row["codec"] else get_codec(row["codec"])
        grounding = codec.parse(row["text"], size=tuple(row["size"]), phrase=row["phrase"])
        assert (None if grounding.box is None else [*grounding.box]) == (row["box"] and pytest.approx(row["box"])), row


@pytest.mark.parametrize("case", ["10-rejection-as-json", "11-refusals-in-chinese"])
def test_rejections_are_refusals(real_data: Callable[[str], Path], case: str) -> None:
    lines = real_data(f"cases/{case}/answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert [INSTRUCT.parse(json.loads(line), size=WIDE).failure for line in lines] == [Failure.REFUSED] * len(lines)
