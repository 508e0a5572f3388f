"""Text made to hurt. A parser that is not linear would need minutes here; `benchmarks/parse.py` holds the times."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egm.boxes import Box
from egm.codecs import Codec, get_codec
from egm.types import Failure

CODECS = [get_codec("qwen3_vl_instruct"), get_codec("qwen2_5_vl"), get_codec("internvl")]
SIZE = (640, 480)

HOSTILE = {
    "[": ("[", Failure.TRUNCATED),
    "(": ("(", Failure.NO_BOX),
    "]": ("]", Failure.NO_BOX),
    "digits": ("1", Failure.NO_BOX),
    "digits and dots": ("0.0.", Failure.NO_BOX),
    "[ and digits": ("[1", Failure.MALFORMED),
    "backslashes": ("\\", Failure.NO_BOX),
    "escaped quotes": ('\\"', Failure.NO_BOX),
    "quotes": ('"', Failure.NO_BOX),
    "spaces": (" ", Failure.NO_BOX),
    "nested braces": ('{"a":', Failure.TRUNCATED),
    "nested boxes": ('{"bbox_2d":[', Failure.TRUNCATED),
    "keys": ('"bbox_2d": ', Failure.NO_BOX),
    "short lists": ("[1]", Failure.NO_BOX),
    "pairs": ("[1, 2]", Failure.MALFORMED),
    "labels": ('bbox_2d:[1,2,3],"label":"\\', Failure.MALFORMED),
    "box tags": ("<box>", Failure.TRUNCATED),
    "reference tags": ("<ref></ref>", Failure.NO_BOX),
    "thoughts": ("<think>", Failure.NO_BOX),
    "comments": ("<!--", Failure.NO_BOX),
    "tildes": ("~~", Failure.NO_BOX),
    "tildes and words": ("~~a", Failure.NO_BOX),
    "roles with colons": ("\nHuman:\nAssistant:", Failure.NO_BOX),
    "half thoughts": ("<|channel|>", Failure.NO_BOX),
    "ends of Kimi's thoughts": ("◁/think▷", Failure.NO_BOX),
    "denials": ("not ( ", Failure.NO_BOX),
    "doubts": ("cannot be really ", Failure.REFUSED),
    "ends of thoughts": ("</think>", Failure.NO_BOX),
    "fences": ("```json\n", Failure.NO_BOX),
    "ends": ("</s><|im_end|>", Failure.NO_BOX),
    "refusals": ("there  is  ", Failure.NO_BOX),
    "negations": ("no such-like ", Failure.REFUSED),
    "nested openings": ("[ [", Failure.TRUNCATED),
    "tool calls": ("<tool_call>", Failure.NO_BOX),
    "tool calls closed": ("<tool_call></tool_call>", Failure.NO_BOX),
    "calls": ('{"name": "a", "arguments": {', Failure.NO_BOX),
    "references open": ("<ref><box>", Failure.TRUNCATED),
    "wrappers": ("<answer>", Failure.NO_BOX),
    "wrappers closed": ("</answer><answer>", Failure.NO_BOX),
    "roles": ("user", Failure.NO_BOX),
    "empty lists": ("[] ", Failure.REFUSED),
    "full width": ("［１，", Failure.NO_BOX),
    "quotes with words": ('"a [1, 2]" ', Failure.MALFORMED),
    "surrogates": ("\ud800", Failure.NO_BOX),
}


@pytest.mark.parametrize("length", [64 * 1024, 1024 * 1024], ids=["64kB", "1MB"])
@pytest.mark.parametrize(("unit", "failure"), HOSTILE.values(), ids=HOSTILE)
def test_repetition(unit: str, failure: Failure, length: int) -> None:
    text = unit * (length // len(unit))
    for codec in CODECS if length < 100_000 else CODECS[:1]:
        grounding = codec.parse(text, size=SIZE)
        foreign = "<box>" in unit and codec.name == "qwen2_5_vl"
        assert (grounding.failure, grounding.box) == (Failure.MALFORMED if foreign else failure, None)


@pytest.mark.parametrize("length", [64 * 1024, 1024 * 1024], ids=["64kB", "1MB"])
def test_deep_nesting_around_a_box(length: int) -> None:
    for opener, closer in (("[", "]"), ('{"a":', "}")):
        depth = length // len(opener)
        balanced = opener * depth + '{"bbox_2d": [1,2,30,40]}' + closer * depth
        for codec in CODECS:
            assert codec.parse(balanced, size=SIZE, seen_size=SIZE).boxes


@pytest.mark.parametrize("length", [64 * 1024, 1024 * 1024], ids=["64kB", "1MB"])
def test_one_list_without_end(length: int) -> None:
    numbers = "1, " * (length // 3)
    for codec in CODECS:
        assert codec.parse("[" + numbers, size=SIZE).failure is Failure.TRUNCATED
        assert codec.parse("[" + numbers + "1]", size=SIZE).failure is Failure.MALFORMED
        assert codec.parse(f'{{"bbox_2d": [{numbers} 1]', size=SIZE).failure is Failure.MALFORMED


@pytest.mark.parametrize("digits", [5_000, 1_000_000])
def test_huge_numbers(digits: int) -> None:
    huge = "9" * digits
    for text in (
        f'{{"bbox_2d": [1, 2, 3, {huge}]}}',
        f"[1, 2, 3, {huge}] is it",
        f"<box>1 2 3 {huge}</box>",
        f"[1, 2, 3, 0.{huge}x]",
    ):
        for codec in CODECS:
            assert codec.parse(text, size=SIZE).failure is Failure.MALFORMED


def test_a_box_after_much_noise_is_found() -> None:
    noise = "[" * 100_000
    text = f'{noise} {{"bbox_2d": [1, 2, 30, 40]}}'
    assert CODECS[0].parse(text, size=(1000, 1000)).box == Box(1, 2, 30, 40)


@pytest.mark.parametrize("size", [(10**400, 5), (1, 10**400), (0, 0), (-1, 5)])
@pytest.mark.parametrize("seen", [None, (10**400, 10**400), (0, 0)])
def test_sizes_that_no_picture_has_are_no_reason_to_raise(size: tuple[int, int], seen: tuple[int, int] | None) -> None:
    for codec in (*CODECS, get_codec("qwen3_vl"), get_codec("qwen2_5_vl")):
        for text in ('[{"bbox_2d": [1, 2, 30, 40]}]', f"[{'9' * 5000}, 1, 2, 3]", "none"):
            assert codec.parse(text, size=size, seen_size=seen).text == text


MARKS = ["[", "]", "{", "}", "(", ")", '"', "'", "\\", ",", ":", " ", "\n", "```", "\ud800", "\x00"]
TAGS = ["<think>", "</think>", "<answer>", "</answer>", "<box>", "</box>", "<ref>", "</ref>", "<|box_start|>", "</s>"]
TAGS += ["◁think▷", "◁/think▷", "[THINK]", "<!--", "-->", "~~", "\nHuman: ", "\nAssistant: ", "not ", "analysisI"]
TAGS += ["<tool_call>", "</tool_call>", "<|im_start|>", "\nuser\n", "，", "［", "“", "\u00a0", "\ufeff"]
WORDS = ["json", "bbox_2d", "bbox", "label", "none", "猫", "1", "-2", "3.5", "1000", "1e9", "NaN", "null"]
BOXES = ["[1, 2, 3, 4]", '"bbox_2d": [1, 2, 3, 4]', "(1,2)"]
PIECES = st.sampled_from([*MARKS, *TAGS, *WORDS, *BOXES])
TEXTS = st.lists(PIECES, max_size=30).map("".join) | st.text(st.characters(exclude_categories=()), max_size=60)


@given(
    text=TEXTS,
    finish_reason=st.sampled_from(["stop", "length"]),
    amodal=st.booleans(),
    size=st.tuples(*[st.integers(1, 5000)] * 2),
)
@settings(max_examples=500, deadline=None)
def test_parse_never_raises_and_never_contradicts_itself(
    text: str, finish_reason: str, amodal: bool, size: tuple[int, int]
) -> None:
    codecs: list[Codec] = [*CODECS, get_codec("qwen3_vl")]
    for codec in codecs:
        grounding = codec.parse(text, size=size, finish_reason=finish_reason, amodal=amodal)
        assert (grounding.box is None) == (grounding.failure is not None) == (not grounding.boxes)
        if grounding.boxes:
            assert grounding.box == grounding.boxes[0].box
        else:
            assert grounding.repairs == ()
        assert grounding.text == text
