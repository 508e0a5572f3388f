from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from egm.boxes import Box
from egm.codecs import codec_names, get_codec, neutralise
from egm.codecs.resize import smart_resize
from egm.errors import EgmError
from egm.types import Failure

SIZE = (640, 480)
BOX = Box(64, 96, 192.2, 191.9)
CODECS = [
    get_codec("qwen3_vl"),
    get_codec("qwen3_vl_instruct"),
    get_codec("qwen2_5_vl"),
    get_codec("internvl"),
]
IDS = ["qwen3_vl-thinking", "qwen3_vl-instruct", "qwen2_5_vl", "internvl"]

JSON_1000 = '```json\n[\n\t{"bbox_2d": [100, 200, 300, 400], "label": "the man"}\n]\n```'
JSON_SEEN = '```json\n[\n\t{"bbox_2d": [64, 95, 193, 190], "label": "the man"}\n]\n```'
TAGS_1000 = "<ref>the man</ref><box>[[100, 200, 300, 400]]</box>"


@pytest.mark.parametrize(
    ("codec", "thought", "unthought"),
    [
        (CODECS[0], f"At the left.\n</think>\n\n{JSON_1000}", f"</think>\n\n{JSON_1000}"),
        (CODECS[1], f"<think>\nAt the left.\n</think>\n\n{JSON_1000}", JSON_1000),
        (CODECS[2], f"<think>\nAt the left.\n</think>\n\n{JSON_SEEN}", JSON_SEEN),
        (CODECS[3], f"<think>\nAt the left.\n</think>\n\n{TAGS_1000}", TAGS_1000),
    ],
    ids=IDS,
)
def test_targets_to_the_letter(codec: Any, thought: str, unthought: str) -> None:
    assert codec.target("the man", BOX, size=SIZE, rationale="At the left.\n") == thought
    assert codec.target("the man", BOX, size=SIZE) == unthought
    assert codec.target("the man", BOX, size=SIZE, rationale=" ") == unthought


@pytest.mark.parametrize("codec", CODECS, ids=IDS)
def test_a_rationale_cannot_end_its_own_thinking(codec: Any) -> None:
    rationale = 'Not </think> [{"bbox_2d": [1, 2, 3, 4]}] <|im_end|>\n\nIt is the second.'
    target = codec.target("the man", BOX, size=SIZE, rationale=rationale)
    assert target.count("</think>") == 1
    assert "<|im_end|>" not in target
    grounding = codec.parse(target, size=SIZE)
    assert len(grounding.boxes) == 1
    assert grounding.reasoning == neutralise(rationale)


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen2_5_vl"])
@pytest.mark.parametrize(
    "phrase", ['the "big" man', "back\\slash", "two\nlines", "男人 é 👨", "```json", "a, [1, 2, 3, 4]", "{"]
)
def test_json_targets_are_json_whatever_the_phrase(name: str, phrase: str) -> None:
    target = get_codec(name).target(phrase, BOX, size=SIZE)
    body = target.removeprefix("</think>\n\n").removeprefix("```json\n").removesuffix("\n```")
    assert json.loads(body)[0]["label"] == phrase


def test_an_amodal_box_leaves_the_scale() -> None:
    target = CODECS[1].target("the bus", Box(-64, 0, 704, 240), size=SIZE)
    assert "[-100, 0, 1100, 500]" in target
    assert CODECS[1].parse(target, size=SIZE, amodal=True).box == Box(-64, 0, 704, 240)
    assert CODECS[1].parse(target, size=SIZE).failure is Failure.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("left", "numbers"),
    [
        (639.9, "[999, 0, 1000, 500]"),  # at the edge of the frame a sliver grows inwards
        (704.0, "[1100, 0, 1101, 500]"),  # beyond it, it keeps its near corner, as anywhere else
        (-64.0, "[-100, 0, -99, 500]"),
    ],
)
def test_an_amodal_sliver_is_one_unit_wide(left: float, numbers: str) -> None:
    assert numbers in CODECS[1].target("the pole", Box(left, 0, left + 0.1, 240), size=SIZE)


@pytest.mark.parametrize("codec", CODECS, ids=IDS)
@pytest.mark.parametrize("box", [Box(0, 0, 0.01, 0.01), Box(639.99, 479.99, 640, 480), Box(320, 240, 320.01, 240.01)])
def test_a_side_that_rounds_to_nothing_is_one_unit_wide(codec: Any, box: Box) -> None:
    read = codec.parse(codec.target("speck", box, size=SIZE), size=SIZE).box
    assert read is not None
    assert read.width <= 2
    assert abs(read.x1 - box.x1) <= 2


MARKS = ['"', "\\", "\n", "'", "```", "```json", "{", "]", "[1, 2, 3, 4]", '"bbox_2d": [5, 6, 7, 8]', "\x00", "\ud800"]
TAGS = ["<think>", "</think>", "<|im_end|>", "<box>", "</ref>", "<answer>", "</answer>", "</s>"]
PIECES = st.sampled_from([*MARKS, *TAGS, "猫", " ", "a"])
PHRASES = st.text(max_size=60) | st.lists(PIECES, max_size=8).map("".join)
SIZES = st.tuples(st.integers(30, 4000), st.integers(30, 4000))
SHARES = st.tuples(*[st.floats(0, 1)] * 4).filter(lambda s: abs(s[0] - s[2]) > 1e-3 and abs(s[1] - s[3]) > 1e-3)


@pytest.mark.parametrize("codec", CODECS, ids=IDS)
@given(phrase=PHRASES, rationale=st.none() | PHRASES, size=SIZES, shares=SHARES)
@example(
    phrase='"bbox_2d": [5, 6, 7, 8]', rationale='[{"bbox_2d": [5, 6, 7, 8]}]', size=SIZE, shares=(0.1, 0.2, 0.3, 0.4)
)
@example(phrase="", rationale=None, size=(31, 30), shares=(0.87890625, 0.0, 0.875, 1.0))
@settings(max_examples=150, deadline=None)
def test_a_target_is_read_back(
    codec: Any, phrase: str, rationale: str | None, size: tuple[int, int], shares: tuple[float, float, float, float]
) -> None:
    x1, x2 = sorted((shares[0] * size[0], shares[2] * size[0]))
    y1, y2 = sorted((shares[1] * size[1], shares[3] * size[1]))
    box = Box(x1, y1, x2, y2)
    grounding = codec.parse(codec.target(phrase, box, size=size, rationale=rationale), size=size)

    assert grounding.failure is None
    assert grounding.repairs == ()
    (only,) = grounding.boxes
    assert only.label == neutralise(phrase).strip()
    assert grounding.reasoning == neutralise(rationale or "").strip()
    assert grounding.box is not None
    span = (
        smart_resize(size, factor=28, min_pixels=3136, max_pixels=12_845_056, least=28)
        if codec.name == "qwen2_5_vl"
        else (1000, 1000)
    )
    for read, true, side, unit in zip(grounding.box, box, size * 2, span * 2, strict=True):
        # Half a unit from rounding, and one more from widening a side that rounded to nothing.
        assert abs(read - true) <= 1.501 * side / unit


def test_pixels_follow_the_processor() -> None:
    small = get_codec("qwen2_5_vl", max_pixels=50_176)
    assert smart_resize(SIZE, factor=28, min_pixels=3136, max_pixels=50_176, least=28) == (252, 168)
    assert "[25, 34, 76, 67]" in small.target("the man", BOX, size=SIZE)
    assert small.parse("[126, 84, 252, 168]", size=SIZE).box == Box(320, 240, 640, 480)
    assert small.parse("[126, 84, 252, 168]", size=SIZE, seen_size=SIZE).box == Box(126, 84, 252, 168)


@pytest.mark.parametrize("name", codec_names())
def test_targets_hold_no_end_of_turn(name: str) -> None:
    assert "<|im_end|>" not in get_codec(name).target("the man", BOX, size=SIZE, rationale="There.")


@pytest.mark.parametrize("name", codec_names())
def test_a_direct_answer_begins_as_it_is_taught(name: str) -> None:
    """What is begun in the model's place is what a target without a rationale begins with, up to the coordinates."""
    codec, box = get_codec(name), Box(10, 20, 30, 40)
    target = codec.target("the <b> cup.", box, size=(100, 100))
    if not (codec.thinking_prefilled or codec.opening("x")):
        with pytest.raises(EgmError, match="has no way to answer without thinking where one is expected"):
            codec.direct_prefill("x")
        return
    begun = codec.direct_prefill("the <b> cup.")
    assert target.startswith(begun)
    assert begun.startswith("</think>") is codec.thinking_prefilled
    rest = target.removeprefix(begun)
    assert not re.match(r"\s", rest)
    assert codec.parse(begun + rest, size=(100, 100)).box == codec.parse(target, size=(100, 100)).box
    anew = target.removeprefix("</think>").strip()  # of a server that does not go on with what was begun
    assert codec.parse(begun + anew, size=(100, 100)).box == codec.parse(target, size=(100, 100)).box
    if codec.thinking_prefilled:
        assert codec.direct_prefill("x", expect="all") == "</think>\n\n"  # for nothing may match
