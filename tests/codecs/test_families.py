"""Every family of the table: its real answers, its targets, and what the others make of its answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egm.boxes import Box
from egm.codecs import Codec, codec_names, get_codec, neutralise
from egm.errors import BoxError
from egm.types import Failure

from .answers import ANSWERS, OUT_OF_PLACE, Answer

SIZE = (1000, 1000)
REAL = [(name, answer) for name, answers in ANSWERS.items() for answer in answers]
IDS = [f"{name}-{number}" for name, answers in ANSWERS.items() for number in range(len(answers))]
CODECS = [get_codec(name) for name in codec_names()]

# Whose answers are read by whom as boxes that are others: the text says neither scale nor order.
UNTOLD = {
    ("qwen2_5_vl", reader): "the key is the same, only the picture's size is another"
    for reader in ("qwen3_vl_instruct", "internvl", "glm_v")
} | {
    (writer, "qwen2_5_vl"): "the same; or tags that fine-tuned ones write too, or a plain list"
    for writer in ("qwen3_vl_instruct", "glm_v", "qwen2_vl")
}


def read(codec: Codec, answer: Answer) -> Any:
    return codec.parse(answer.text, size=answer.seen or SIZE, seen_size=answer.seen)


@pytest.mark.parametrize(("name", "answer"), REAL, ids=IDS)
def test_real_answers(name: str, answer: Answer) -> None:
    grounding = read(get_codec(name), answer)
    if isinstance(answer.boxes, Failure):
        assert (grounding.failure, grounding.boxes) == (answer.boxes, ())
        return
    assert [tuple(item.box) for item in grounding.boxes] == [pytest.approx(box, abs=0.51) for box in answer.boxes]
    assert grounding.boxes[0].label == answer.label
    assert grounding.failure is None


def test_a_family_is_proven_by_three_real_answers() -> None:
    for codec in CODECS:
        told = ANSWERS.get("qwen3_vl_instruct" if codec.name == "qwen3_vl" else codec.name, [])
        assert codec.proven == (len(told) >= 3), codec.name
        assert all(answer.source for answer in told)


@pytest.mark.parametrize("reader", [c for c in CODECS if not c.thinking_prefilled], ids=lambda codec: codec.name)
def test_no_codec_makes_another_box_of_another_familys_answer(reader: Codec) -> None:
    """A box that is the same is right whoever reads it; another one is a failure, but where the text cannot tell.

    A codec whose template opens the reasoning reads as its twin does, once that is over.
    """
    misread = set()
    for name, answer in REAL:
        own, other = read(get_codec(name), answer), read(reader, answer)
        if other.boxes and not (own.box and other.box and max(map(abs, _apart(own.box, other.box))) < 1):
            misread.add(name)
    assert misread == {writer for writer, by in UNTOLD if by == reader.name}


def _apart(a: Box, b: Box) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_target_in_another_familys_form_is_the_same_box_or_none(codec: Codec) -> None:
    """The cross test of what families write, over all pairs; forms that mean the same may differ by rounding."""
    size = (640, 480)
    target = codec.target("the cup", Box(96, 200, 320, 400), size=size)
    box = codec.parse(target, size=size).box
    assert box is not None
    for reader in CODECS:
        got = reader.parse(target, size=size).box
        pair = {codec.name, reader.name}
        untold = "qwen2_5_vl" in pair and pair & {"qwen3_vl", "qwen3_vl_instruct", "internvl", "glm_v", "qwen2_vl"}
        if got is not None and not untold:
            assert max(map(abs, _apart(got, box))) < 1.5, (codec.name, reader.name)


STRIPPED = {
    "rex_omni": (
        "robot-shape light<128><95><218><259>,<771><96><876><254>, lamp<1><2><30><40>",
        "robot-shape light",
        3,
    ),
    "locate_anything": ("person<365><526><380><590><381><526><396>", "person", 0),
    "deepseek_vl2": ("The giraffe at the back.[[580, 270, 999, 900]]", None, 1),
    "qwen_vl": ("击掌(536,509),(588,602)", None, 1),
    "glm_v": ("It is at [[97,595,179,988]].", None, 1),
}


@pytest.mark.parametrize("name", STRIPPED)
def test_tags_that_a_server_has_stripped(name: str) -> None:
    text, label, count = STRIPPED[name]
    grounding = get_codec(name).parse(text, size=SIZE)
    assert len(grounding.boxes) == count
    if count:
        assert (grounding.boxes[0].label, "bare_list" in grounding.repairs) == (label, True)
    else:
        assert grounding.failure is Failure.MALFORMED


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_the_word_for_none_is_a_refusal(codec: Codec) -> None:
    before = "</think>" if codec.thinking_prefilled else ""
    for none in [codec.none] if codec.none is not None else ["There is no such cup."]:
        grounding = codec.parse(before + none, size=SIZE)
        assert (grounding.failure, grounding.boxes) == (Failure.REFUSED, ())


@pytest.mark.parametrize("text", OUT_OF_PLACE.values(), ids=OUT_OF_PLACE)
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_what_is_no_box_to_anyone(codec: Codec, text: str) -> None:
    grounding = codec.parse(text, size=SIZE)
    assert grounding.boxes == ()


SHARES = st.tuples(*[st.floats(0, 1)] * 4).filter(lambda s: abs(s[0] - s[2]) > 0.04 and abs(s[1] - s[3]) > 0.04)
PIECES = ['"', "\\", "\n", "'", "```", "{", "]", "[1, 2, 3, 4]", '"bbox_2d": [5, 6, 7, 8]', "<think>", "</answer>", ";"]
PIECES += ["<box>", "<loc_5>", "<loc0005>", "<5>", "</phrase>", "<|det|>", "<|im_end|>", "猫", " ", "a", ","]
PHRASES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@given(phrase=PHRASES, size=st.tuples(*[st.integers(32, 4000)] * 2), shares=SHARES)
@settings(max_examples=60, deadline=None)
def test_targets_come_back(
    codec: Codec, phrase: str, size: tuple[int, int], shares: tuple[float, float, float, float]
) -> None:
    x1, x2 = sorted((shares[0] * size[0], shares[2] * size[0]))
    y1, y2 = sorted((shares[1] * size[1], shares[3] * size[1]))
    grounding = codec.parse(codec.target(phrase, Box(x1, y1, x2, y2), size=size), size=size)
    (only,) = grounding.boxes
    assert grounding.repairs == ()
    assert only.label in (None, neutralise(phrase).strip())
    unit = [side / span for side, span in zip(size * 2, codec.scale(size, None).span * 2, strict=True)]
    unit = [value / 10 ** codec.scale(size, None).digits for value in unit]
    for read_at, true, step in zip(only.box, (x1, y1, x2, y2), unit, strict=True):
        assert abs(read_at - true) <= 1.501 * step


def test_a_box_beyond_the_frame_has_no_tokens() -> None:
    for codec in CODECS:
        target = {"phrase": "the bus", "box": Box(-64, 0, 704, 240), "size": (640, 480)}
        if codec.form.bounded:
            with pytest.raises(BoxError, match="leaves the frame, where codec"):
                codec.target(**target)  # type: ignore[arg-type]
        else:
            codec.target(**target)  # type: ignore[arg-type]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_thousands_of_boxes(codec: Codec) -> None:
    """In linear time: a quadratic reading of these would take minutes."""
    one = codec.target("cup", Box(64, 96, 192, 192), size=(640, 480)).removeprefix("</think>\n\n")
    first = codec.parse(one, size=(640, 480)) if not codec.thinking_prefilled else None
    text = ("</think>" if codec.thinking_prefilled else "") + (one + "\n") * 20_000
    grounding = codec.parse(text, size=(640, 480))
    assert len(grounding.boxes) == 20_000
    assert first is None or grounding.box == first.box


UNITS = [
    "<box>",
    "<box><1>",
    "<ref>",
    "<loc_1>",
    "<loc0001>",
    "<loc_",
    "<5>,",
    "<|det|>[[",
    "<object>",
    "<patch_index_1>",
]
UNITS += [
    "<|begin_of_box|>{",
    '{"x_min": 1, ',
    "</delimiter_of_multi_objects/>",
    "<phrase>",
    "<|box_start|><1><2>",
    "<bbox>1 ",
]


@pytest.mark.parametrize("unit", UNITS)
def test_hostile_tokens(unit: str) -> None:
    for codec in CODECS:
        grounding = codec.parse(unit * (256 * 1024 // len(unit)), size=SIZE)
        assert (grounding.box is None) == (grounding.failure is not None)
        if grounding.box is not None:  # runs of tokens hold boxes, whatever else they are
            assert codec.name in ("florence2", "paligemma")


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_target_that_is_cut_off_has_no_box(codec: Codec) -> None:
    target = codec.target("the cup", Box(64, 96, 192, 192), size=(640, 480)).removeprefix("</think>\n\n")
    opening = codec.opening("the cup")
    assert target.startswith(opening)
    before = "</think>" if codec.thinking_prefilled else ""
    for end in range(len(opening), len(opening) + 6):
        grounding = codec.parse(before + target[:end], size=(640, 480), finish_reason="length")
        assert grounding.failure in (Failure.TRUNCATED, Failure.MALFORMED)
