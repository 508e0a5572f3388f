from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egm.boxes import Box
from egm.codecs import Repair, get_codec
from egm.types import Failure

SIZE = (1000, 1000)
INSTRUCT = get_codec("qwen3_vl_instruct")
THINKING = get_codec("qwen3_vl")
PIXELS = get_codec("qwen2_5_vl")
INTERNVL = get_codec("internvl")
BOX = Box(1, 2, 30, 40)
GOOD = '{"bbox_2d": [1, 2, 30, 40], "label": "it"}'

READ = {
    "object": (GOOD, []),
    "array": (f"[{GOOD}]", []),
    "fence": (f"```json\n[{GOOD}]\n```", []),
    "fence without a language": (f"```\n{GOOD}\n```", []),
    "fence that is left open": (f"```json\n{GOOD}", []),
    "fence in prose": (f"It is here:\n```json\n{GOOD}\n```\nDone.", []),
    "second fence": (f"```json\nnothing\n```\n```json\n{GOOD}\n```", []),
    "fence in the label": ('```json\n[{"bbox_2d": [1, 2, 30, 40], "label": "```"}]\n```', []),
    "objects deeper": ('{"objects": [{"bbox_2d": [1, 2, 30, 40]}]}', []),
    "floats": ('{"bbox_2d": [1.0, 2e0, 3.0E1, 40]}', []),
    "answer tags": (f"<answer>{GOOD}</answer>", []),
    "last answer tags": (f'<answer>{{"bbox_2d": [5, 6, 7, 8]}}</answer> no, <answer>{GOOD}</answer>', []),
    "end of turn": (f'{GOOD}<|im_end|>\n<|im_start|>user {{"bbox_2d": [5, 6, 7, 8]}}', []),
    "key": ('{"bbox": [1, 2, 30, 40]}', ["bbox_key"]),
    "string": ('{"bbox_2d": "[1, 2, 30, 40]"}', ["quoted_numbers"]),
    "string, bare": ('{"bbox_2d": "1, 2, 30, 40"}', ["quoted_numbers"]),
    "string, spaces": ('{"bbox_2d": "1 2 30 40"}', ["quoted_numbers", "spaces"]),
    "string and key": ('{"bbox": "[1, 2, 30, 40]"}', ["bbox_key", "quoted_numbers"]),
    "strings": ('{"bbox_2d": ["1", "2", "30", "40"]}', ["quoted_numbers"]),
    "strings, bare list": ('["1", "2", "30", "40"]', ["quoted_numbers", "bare_list"]),
    "nested": ('{"bbox_2d": [[1, 2, 30, 40]]}', ["nested_list"]),
    "nested string": ('{"bbox_2d": ["1,2,30,40"]}', ["quoted_numbers", "nested_list"]),
    "JSON in JSON": ('["{\\"bbox_2d\\": [1, 2, 30, 40]}"]', ["quoted_json"]),
    "escaped quotes": ('{\\"bbox_2d\\": [1, 2, 30, 40], \\"label\\": \\"it\\"}', ["broken_json"]),
    "single quotes": ("{'bbox_2d': [1, 2, 30, 40], 'label': 'it'}", ["broken_json"]),
    "key without quotes": ("{bbox_2d: [1, 2, 30, 40]}", ["broken_json"]),
    "trailing comma": ('[{"bbox_2d": [1, 2, 30, 40],},]', ["broken_json"]),
    "trailing comma inside": ('{"bbox_2d": [1, 2, 30, 40,]}', ["broken_json"]),
    "prose around": (f"Here: {GOOD}.", ["broken_json"]),
    "prose with brackets around": (f"Not [9, 9, 99, 99]: {GOOD} [9, 9, 99, 99]", ["broken_json"]),
    "stop string": ('```json\n[\n\t{"bbox_2d": [1, 2, 30, 40], ', ["broken_json"]),
    "stop string kept": ('```json\n[\n\t{"bbox_2d": [1, 2, 30, 40], "label"', ["broken_json"]),
    "nested in broken JSON": ('["{"bbox_2d": [[1, 2, 30, 40]]}]', ["nested_list", "broken_json"]),
    "bare list": ("[1, 2, 30, 40]", ["bare_list"]),
    "bare list of lists": ("[[1, 2, 30, 40]]", ["bare_list"]),
    "list in prose": ("Its box is: [1, 2, 30, 40].", ["bare_list"]),
    "list with spaces": ("[1 2 30 40]", ["spaces", "bare_list"]),
    "parentheses": ("(1, 2, 30, 40)", ["bare_list"]),
    "corners": ("(1,2),(30,40)", ["corner_pairs", "bare_list"]),
    "corners in tags": ("<|box_start|>(1,2),(30,40)<|box_end|>", ["other_form"]),
    "wrong bracket": ("[1, 2, 30, 40)", ["wrong_bracket", "bare_list"]),
    "wrong bracket after a key": ('{"bbox_2d": [1, 2, 30, 40}', ["wrong_bracket", "broken_json"]),
    "full width": ("[1，2，30，40]", ["punctuation", "bare_list"]),
    "typographic quotes": ("[{“bbox_2d”: [1, 2, 30, 40], “label”: “it”}]", ["punctuation"]),
    "no-break spaces": ('[{"bbox_2d": [1,\u00a02,\u00a030,\u00a040]}]', ["punctuation"]),
    "another word for box": ('{"bounding_box": [1, 2, 30, 40]}', ["bbox_key"]),
    "after another family's key": ('{"box_2d": [5, 6, 7, 8], "bbox_2d": [1, 2, 30, 40]}', ["passed_over"]),
    "the same, broken": ('["{"box_2d": [5, 6, 7, 8], "bbox_2d": [1, 2, 30, 40]}]', ["broken_json", "passed_over"]),
    "InternVL": ("<ref>it</ref><box>[[1, 2, 30, 40]]</box>", ["other_form"]),
}


@pytest.mark.parametrize(("text", "repairs"), READ.values(), ids=READ)
def test_read(text: str, repairs: list[str]) -> None:
    for codec in (INSTRUCT,) if "<box>" in text else (INSTRUCT, PIXELS):
        grounding = codec.parse(text, size=SIZE, seen_size=SIZE)
        assert grounding.box == BOX
        assert grounding.boxes[0].box == BOX
        assert list(grounding.repairs) == repairs


INTERNVL_READ = {
    "both tags": ("<ref>it</ref><box>[[1, 2, 30, 40]]</box>", "it", []),
    "single brackets": ("<ref>it</ref><box>[1, 2, 30, 40]</box>", "it", []),
    "in prose": ("The <ref>it</ref> <box>[[1,2,30,40]]</box> is there.", "it", []),
    "label with <": ("<ref>a < b</ref><box>[[1,2,30,40]]</box>", "a < b", []),
    "no reference": ("<box>[[1, 2, 30, 40]]</box>", None, []),
    "reference elsewhere": ("<ref>it</ref> stands at <box>[[1, 2, 30, 40]]</box>", None, []),
    "reference not opened": ("it</ref><box>[[1, 2, 30, 40]]</box>", None, []),
    "not closed": ("<ref>it</ref><box>[[1, 2, 30, 40]]", "it", []),
    "opened twice": ("<box>[[1, <box>[[1, 2, 30, 40]]</box>", None, []),
    "spaces": ("<box>1 2 30 40</box>", None, ["spaces"]),
    "no brackets": ("<box>1, 2, 30, 40</box>", None, []),
    "tags stripped": ("it[[1, 2, 30, 40]]", None, ["bare_list"]),
    "only a list": ("[[1, 2, 30, 40]]", None, ["bare_list"]),
    "JSON": (f"```json\n[{GOOD}]\n```", "it", ["other_form"]),
}


@pytest.mark.parametrize(("text", "label", "repairs"), INTERNVL_READ.values(), ids=INTERNVL_READ)
def test_internvl_reads(text: str, label: str | None, repairs: list[str]) -> None:
    grounding = INTERNVL.parse(text, size=SIZE)
    assert grounding.box == BOX
    assert grounding.boxes[0].label == label
    assert list(grounding.repairs) == repairs


NOT_READ = {
    "nothing": ("", Failure.NO_BOX),
    "blank": (" \n", Failure.NO_BOX),
    "prose": ("It is on the left, not far from the tree.", Failure.NO_BOX),
    "empty list": ("[]", Failure.REFUSED),
    "null": ("null", Failure.REFUSED),
    "number": ("7", Failure.NO_BOX),
    "label only": ('{"label": "it"}', Failure.NO_BOX),
    "numbers in prose": ("It stands at 1, 2, 30, 40.", Failure.NO_BOX),
    "box in a label": ('{"label": "say \\"bbox_2d\\": [1, 2, 30, 40]"}', Failure.NO_BOX),
    "footnote": ("It is there [1].", Failure.NO_BOX),
    "none": ("There are none.", Failure.REFUSED),
    "no such": ("No such object is in the image.", Failure.REFUSED),
    "sorry": ("Sorry, I can’t help with that.", Failure.REFUSED),
    "not present": ("The dog isn't visible here.", Failure.REFUSED),
    "Chinese": ("图中没有狗。", Failure.REFUSED),
    "in JSON": ('"There is no dog."', Failure.REFUSED),
    "three numbers": ('{"bbox_2d": [1, 2, 30]}', Failure.MALFORMED),
    "five numbers": ('{"bbox_2d": [1, 2, 30, 40, 50]}', Failure.MALFORMED),
    "eight numbers": ("[1, 2, 30, 40, 1, 2, 30, 40]", Failure.MALFORMED),
    "sixty-five numbers": ("<box>" + "1 " * 65 + "</box>", Failure.MALFORMED),
    "no numbers": ('{"bbox_2d": []}', Failure.REFUSED),
    "null box": ('{"bbox_2d": null}', Failure.REFUSED),
    "words": ('{"bbox_2d": "none"}', Failure.REFUSED),
    "other words": ('{"bbox_2d": "there"}', Failure.MALFORMED),
    "object": ('{"bbox_2d": {"x1": 1, "y1": 2, "x2": 30, "y2": 40}}', Failure.MALFORMED),
    "objects": ('{"bbox_2d": [{"x1": 1}]}', Failure.MALFORMED),
    "booleans": ('{"bbox_2d": [true, true, false, false]}', Failure.MALFORMED),
    "point": ('{"point_2d": [1, 2]}', Failure.MALFORMED),
    "3-D": ('{"bbox_3d": [1, 2, 3, 4, 5, 6, 7, 8, 9]}', Failure.MALFORMED),
    "another key": ('{"box_2d": [1, 2, 30, 40]}', Failure.MALFORMED),
    "another key, broken": ('[{"box_2d": [1, 2, 30, 40]}', Failure.MALFORMED),
    "points": ("[[1, 2], [30, 40]]", Failure.MALFORMED),
    "odd nesting": ("[1, [2, 3, 4, 5]]", Failure.MALFORMED),
    "placeholder": ("It is at [x1, y1, x2, y2].", Failure.MALFORMED),
    "NaN": ('{"bbox_2d": [NaN, 2, 30, 40]}', Failure.MALFORMED),
    "Infinity": ('{"bbox_2d": [1, 2, Infinity, 40]}', Failure.MALFORMED),
    "-Infinity": ("[-Infinity, 2, 30, 40]", Failure.MALFORMED),
    "nan in a string": ('{"bbox_2d": "nan, 2, 30, 40"}', Failure.MALFORMED),
    "too large for a float": ('{"bbox_2d": [1, 2, 1e999, 40]}', Failure.MALFORMED),
    "units": ("[1px, 2px, 30px, 40px]", Failure.MALFORMED),
    "other digits": ("[1, 2, ３０, ４０]", Failure.MALFORMED),
    "underscores": ("[1, 2, 3_0, 4_0]", Failure.MALFORMED),
    "a bracket lost": ('{"bbox_2d": [1, 2, 30, 40', Failure.TRUNCATED),
    "beyond": ('{"bbox_2d": [1, 2, 30, 1251]}', Failure.OUT_OF_RANGE),
    "negative": ('{"bbox_2d": [-1, 2, 30, 40]}', Failure.OUT_OF_RANGE),
    "huge integer": ('{"bbox_2d": [1, 2, 30, 1' + "0" * 300 + "]}", Failure.OUT_OF_RANGE),
    "inverted across": ('{"bbox_2d": [30, 2, 1, 40]}', Failure.DEGENERATE),
    "inverted down": ('{"bbox_2d": [1, 40, 30, 2]}', Failure.DEGENERATE),
    "inverted both ways": ("[30, 40, 1, 2]", Failure.DEGENERATE),
    "empty": ("[5, 5, 5, 5]", Failure.DEGENERATE),
    "inverted and beyond": ("[9000, 2, 1, 40]", Failure.OUT_OF_RANGE),
    "cut in a box": ('[{"bbox_2d": [1, 2, 30, 4', Failure.TRUNCATED),
    "cut after four": ('[{"bbox_2d": [1, 2, 30, 40', Failure.TRUNCATED),
    "cut after the key": ('```json\n[\n\t{"bbox_2d": ', Failure.TRUNCATED),
    "cut in the key": ('```json\n[\n\t{"bbo', Failure.TRUNCATED),
    "cut in a bare list": ("[1, 2, 30", Failure.TRUNCATED),
    "cut in corners": ("it(1,2", Failure.TRUNCATED),
    "first reason": ("[1, 2, 3] [5, 5, 5, 5]", Failure.MALFORMED),
}


@pytest.mark.parametrize(("text", "failure"), NOT_READ.values(), ids=NOT_READ)
@pytest.mark.parametrize("codec", [INSTRUCT, PIXELS, INTERNVL], ids=lambda codec: codec.name)
def test_not_read(codec: Any, text: str, failure: Failure) -> None:
    grounding = codec.parse(text, size=SIZE, seen_size=SIZE)
    assert grounding.failure is failure
    assert grounding.box is None
    assert grounding.boxes == ()
    assert grounding.repairs == ()


@pytest.mark.parametrize("text", ["<ref>it</ref><box>[[1, 2, 3", "<box>1 2 30 40"])
def test_cut_in_tags(text: str) -> None:
    for codec in (INSTRUCT, INTERNVL):
        assert codec.parse(text, size=SIZE).failure is Failure.TRUNCATED


@pytest.mark.parametrize(
    "text",
    [
        "<ref>it</ref><box>[[1, 2, 30, 40]]</box>",
        "<box>[[1, 2, 30",
        "<loc0001><loc0002><loc0003><loc0004> it",
        "<|begin_of_box|>[[1,2,30,40]]<|end_of_box|>",
        '<points x1="1" y1="2">it</points> [1, 2, 30, 40]',
    ],
)
def test_numbers_of_another_scale_are_not_read(text: str) -> None:
    grounding = PIXELS.parse(text, size=SIZE, seen_size=SIZE)
    assert (grounding.failure, grounding.boxes) == (Failure.MALFORMED, ())


def test_sides_that_round_to_nothing_are_degenerate() -> None:
    assert INSTRUCT.parse("[0, 0, 5e-324, 2]", size=(1, 1)).failure is Failure.DEGENERATE


def test_what_is_asked_is_carried_along() -> None:
    grounding = INSTRUCT.parse(GOOD, size=SIZE, phrase="it")
    assert (grounding.text, grounding.phrase, grounding.size) == (GOOD, "it", SIZE)


def test_the_token_limit_shows_only_where_there_is_no_box() -> None:
    assert INSTRUCT.parse(GOOD, size=SIZE, finish_reason="length").failure is None
    assert INSTRUCT.parse("It is on the", size=SIZE, finish_reason="length").failure is Failure.TRUNCATED
    assert INSTRUCT.parse("There is no dog in the", size=SIZE, finish_reason="length").failure is Failure.REFUSED


def test_the_first_valid_box_answers_and_the_others_are_listed() -> None:
    text = (
        '[{"bbox_2d": [1, 2, 3000, 40], "label": "far"}, {"bbox_2d": [5, 6, 7, 8], "label": "a"},'
        ' {"bbox_2d": [8, 7, 6, 5]}, {"label": "b", "bbox_2d": [1, 2, 30, 40]}]'
    )
    grounding = INSTRUCT.parse(text, size=SIZE)
    assert grounding.box == Box(5, 6, 7, 8)
    assert [(item.box, item.label) for item in grounding.boxes] == [(Box(5, 6, 7, 8), "a"), (BOX, "b")]
    assert grounding.failure is None


def test_repeated_keys_are_all_read() -> None:
    grounding = INSTRUCT.parse('{"bbox": [1, 2, 30, 40], "bbox": [5, 6, 7, 8], "label": "x"}', size=SIZE)
    assert [item.box for item in grounding.boxes] == [BOX, Box(5, 6, 7, 8)]


def test_several_boxes_in_one_tag() -> None:
    grounding = INTERNVL.parse("<ref>it</ref><box>[[1, 2, 30, 40], [5, 6, 7, 8]]</box>", size=SIZE)
    assert [item.box for item in grounding.boxes] == [BOX, Box(5, 6, 7, 8)]
    assert [item.label for item in grounding.boxes] == ["it", "it"]


def test_a_box_in_a_label_of_broken_json_is_never_read() -> None:
    for tail in ('"}', '"}]', "", ", "):
        text = '["{"bbox_2d": [30, 2, 1, 40], "label": "answer \\"bbox_2d\\": [0, 0, 9, 9], [0, 0, 9, 9]' + tail
        assert INSTRUCT.parse(text, size=SIZE).failure is Failure.DEGENERATE


def test_labels_of_broken_json_are_unescaped() -> None:
    text = '["{"bbox_2d": [1, 2, 30, 40], "label": "the \\"big\\" \\u732b"}]'
    assert INSTRUCT.parse(text, size=SIZE).boxes[0].label == 'the "big" 猫'
    text = "{'bbox_2d': [1, 2, 30, 40], 'label': 'it\\'s'}"
    assert INSTRUCT.parse(text, size=SIZE).boxes[0].label == "it\\'s"
    text = '{bbox_2d: [1, 2, 30, 40], "label": "bad \\x escape"}'
    assert INSTRUCT.parse(text, size=SIZE).boxes[0].label == "bad \\x escape"


@pytest.mark.parametrize("text", ["Left.", "<think>\nLeft.", 'It: [{"bbox_2d": [1, 2, 30, 40]}]'])
def test_a_prefilled_thought_that_never_ends_is_all_thought(text: str) -> None:
    stopped = THINKING.parse(text, size=SIZE)
    assert (stopped.failure, stopped.boxes) == (Failure.NO_BOX, ())
    assert stopped.reasoning == text.removeprefix("<think>").strip()
    assert THINKING.parse(text, size=SIZE, finish_reason="length").failure is Failure.TRUNCATED


@pytest.mark.parametrize("text", [GOOD, f"[{GOOD}]", f"```json\n[{GOOD}]\n```"])
def test_one_strict_answer_needs_no_end_of_thought(text: str) -> None:
    """As an Instruct model gives it, or a server that keeps the reasoning to itself."""
    grounding = THINKING.parse(text, size=SIZE)
    assert (grounding.box, grounding.reasoning, grounding.repairs) == (BOX, "", ())
    # Cut off, it may as well be a thought.
    assert THINKING.parse(text, size=SIZE, finish_reason="length").failure is Failure.TRUNCATED


@pytest.mark.parametrize("codec", [INSTRUCT, PIXELS, INTERNVL, THINKING])
def test_an_opened_thought_that_never_ends_is_all_thought(codec: Any) -> None:
    for text in (f"<think>{GOOD}", f"<think>a</think><think>{GOOD}"):
        grounding = codec.parse(text, size=SIZE)
        assert (grounding.failure, grounding.boxes) == (Failure.NO_BOX, ())
        assert "bbox_2d" in grounding.reasoning
        assert codec.parse(text, size=SIZE, finish_reason="length").failure is Failure.TRUNCATED


def test_what_stands_before_an_opened_thought_is_answer() -> None:
    grounding = INSTRUCT.parse(f"{GOOD} <think> or [5, 6, 7, 8]?", size=SIZE)
    assert [item.box for item in grounding.boxes] == [BOX]
    assert grounding.reasoning == "or [5, 6, 7, 8]?"


def test_only_the_last_close_counts() -> None:
    text = f'<think>One {{"bbox_2d": [5, 6, 7, 8]}}</think>\n[9, 9, 10, 10]</think>\n{GOOD}'
    for codec in (INSTRUCT, THINKING, PIXELS, INTERNVL):
        grounding = codec.parse(text, size=SIZE, seen_size=SIZE)
        assert [item.box for item in grounding.boxes] == [BOX]
        assert grounding.reasoning.endswith("</think>\n[9, 9, 10, 10]")


DECOYS = st.sampled_from(
    [
        GOOD,
        f"[{GOOD}]",
        "[5, 6, 7, 8]",
        "<box>[[5, 6, 7, 8]]</box>",
        "(5,6),(7,8)",
        f"<answer>{GOOD}</answer>",
        "```json",
        "{",
        "[",
    ]
) | st.text(max_size=20)


@given(
    decoys=st.lists(DECOYS, max_size=6), opened=st.booleans(), end=st.sampled_from(["", "Nothing.", "[30, 2, 1, 40]"])
)
@settings(max_examples=200, deadline=None)
def test_a_decoy_in_the_thinking_is_never_read(decoys: list[str], opened: bool, end: str) -> None:
    text = ("<think>" if opened else "") + "\n".join(decoys) + "</think>" + end
    for codec in (INSTRUCT, THINKING, PIXELS, INTERNVL):
        assert codec.parse(text, size=SIZE).boxes == ()


def test_range_on_the_relative_scale() -> None:
    for codec in (INSTRUCT, INTERNVL):
        assert codec.parse("[0, 0, 1000, 1000]", size=(640, 480)).box == Box(0, 0, 640, 480)
        assert codec.parse("[0, 0, 1000.5, 1000]", size=SIZE).failure is Failure.OUT_OF_RANGE
        assert codec.parse("[-1000, -1000, 2000, 2000]", size=SIZE, amodal=True).box == Box(-1000, -1000, 2000, 2000)
        assert codec.parse("[-1001, 0, 5, 5]", size=SIZE, amodal=True).failure is Failure.OUT_OF_RANGE
        assert codec.parse("[0, 0, 5, 2001]", size=SIZE, amodal=True).failure is Failure.OUT_OF_RANGE


def test_range_in_pixels() -> None:
    size = (640, 480)
    # Passing the right and lower edges by a quarter is read, and nothing is clipped.
    assert PIXELS.parse("[0, 0, 800, 600]", size=size, seen_size=size).box == Box(0, 0, 800, 600)
    assert PIXELS.parse("[0, 0, 801, 600]", size=size, seen_size=size).failure is Failure.OUT_OF_RANGE
    assert PIXELS.parse("[0, 0, 800, 601]", size=size, seen_size=size).failure is Failure.OUT_OF_RANGE
    assert PIXELS.parse("[-1, 0, 8, 8]", size=size, seen_size=size).failure is Failure.OUT_OF_RANGE
    assert PIXELS.parse("[-640, -480, 1280, 960]", size=size, seen_size=size, amodal=True).box == Box(
        -640, -480, 1280, 960
    )
    assert PIXELS.parse("[-641, 0, 8, 8]", size=size, seen_size=size, amodal=True).failure is Failure.OUT_OF_RANGE


def test_nothing_is_guessed_from_magnitudes() -> None:
    for shares in ("[0.1, 0.2, 0.3, 0.4]", '{"bbox_2d": [0, 0, 0.5, 1]}'):
        for codec in (INSTRUCT, PIXELS, INTERNVL):
            assert codec.parse(shares, size=SIZE, seen_size=SIZE).failure is Failure.OUT_OF_RANGE
    assert INSTRUCT.parse("[0, 0, 1, 1]", size=SIZE).box == Box(0, 0, 1, 1)
    assert INSTRUCT.parse("[0.1, 0.2, 1.3, 1.4]", size=SIZE).box == Box(0.1, 0.2, 1.3, 1.4)
    same = "[100, 100, 300, 300]"
    assert INSTRUCT.parse(same, size=(500, 500)).box == Box(50, 50, 150, 150)
    assert PIXELS.parse(same, size=(500, 500), seen_size=(500, 500)).box == Box(100, 100, 300, 300)


def test_the_repairs_are_a_small_list() -> None:
    assert [str(repair) for repair in Repair] == [
        "bbox_key",
        "quoted_numbers",
        "spaces",
        "punctuation",
        "wrong_bracket",
        "nested_list",
        "quoted_json",
        "other_form",
        "broken_json",
        "corner_pairs",
        "bare_list",
        "passed_over",
        "in_words",
        "too_many",
    ]


@pytest.mark.parametrize("label", ["a <think> b", "the </s> shirt", "<answer> x", "<|im_end|>"])
def test_control_words_inside_a_label_are_part_of_it(label: str) -> None:
    answer = json.dumps([{"bbox_2d": [100, 200, 300, 400], "label": label}])
    for text in (answer, f"```json\n{answer}\n```", f"It is there.\n</think>\n\n{answer}"):
        grounding = get_codec("qwen3_vl" if "</think>" in text else "qwen3_vl_instruct").parse(text, size=(1000, 1000))
        assert grounding.box == Box(100, 200, 300, 400)
        assert grounding.boxes[0].label == label
        assert grounding.repairs == ()
