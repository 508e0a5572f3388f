"""What looks like a box and is none, and the box that stands beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from egm.boxes import Box
from egm.codecs import get_codec
from egm.types import Failure

SIZE = (1000, 1000)
INSTRUCT = get_codec("qwen3_vl_instruct")
THINKING = get_codec("qwen3_vl")
INTERNVL = get_codec("internvl")
BOX = Box(1, 2, 30, 40)
GOOD = '{"bbox_2d": [1, 2, 30, 40], "label": "it"}'
DECOY = '{"bbox_2d": [5, 6, 70, 80], "label": "it"}'
CALL = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [5, 6, 70, 80], "label": "it"}}'

BESIDE = {
    "a tool call before": f"<tool_call>\n{CALL}\n</tool_call>\n{GOOD}",
    "a tool call after": f"{GOOD}\n<tool_call>\n{CALL}\n</tool_call>",
    "a tool call never closed": f"{GOOD}\n<tool_call>\n{CALL}",
    "a tool call without tags": f"{CALL}\n{GOOD}",
    "a tool's answer": f"<tool_response>{DECOY}</tool_response>{GOOD}",
    "thoughts in tags": f"<thinking>It may be {DECOY}.</thinking>\n{GOOD}",
    "thoughts in JSON": '{"reasoning": [{"bbox_2d": [5, 6, 70, 80]}], "answer": {"bbox_2d": [1, 2, 30, 40]}}',
    "thoughts in JSON, rejected": f'{{"rejected": [{DECOY}], "final": [{GOOD}]}}',
    "Seed's thoughts": f"<seed:think>It may be {DECOY}.</seed:think>{GOOD}",
    "Seed's thoughts, opened by the template": f"It may be {DECOY}.</seed:think>{GOOD}",
    "LongCat's thoughts": "<longcat_think>[5, 6, 70, 80]</longcat_think>[1, 2, 30, 40]",
    "Kimi's thoughts": "◁think▷[5, 6, 70, 80]◁/think▷[1, 2, 30, 40]",
    "Kimi's thoughts, opened by the template": "[5, 6, 70, 80]◁/think▷[1, 2, 30, 40]",
    "Magistral's thoughts": f"[THINK]It may be {DECOY}.[/THINK]{GOOD}",
    "Cohere's thoughts": f"<|START_THINKING|>{DECOY}<|END_THINKING|>{GOOD}",
    "Sky-T1's thoughts": f"<|begin_of_thought|>{DECOY}<|end_of_thought|>{GOOD}",
    "gpt-oss's thoughts": f"<|channel|>analysis<|message|>{DECOY}<|end|><|channel|>final<|message|>{GOOD}",
    "gpt-oss's thoughts, tokens stripped": f"analysisIt may be {DECOY}.assistantfinal{GOOD}",
    "reflection": f"<reflection>It may be {DECOY}.</reflection>{GOOD}",
    "tags in capitals": f"<Thinking>It may be {DECOY}.</Thinking>{GOOD}",
    "struck out": "~~[5, 6, 70, 80]~~ [1, 2, 30, 40]",
    "struck out, in JSON": f"~~{DECOY}~~\n{GOOD}",
    "deleted": "<del>[5, 6, 70, 80]</del> [1, 2, 30, 40]",
    "a comment": f"<!-- {DECOY} --> {GOOD}",
    "a comment never closed": f"{GOOD} <!-- {DECOY}",
    "denied": "It is not [5, 6, 70, 80]; it is [1, 2, 30, 40].",
    "denied in parentheses": "Not at (5, 6, 70, 80), but (1, 2, 30, 40).",
    "another in its place": "Instead of [5, 6, 70, 80] I take [1, 2, 30, 40].",
    "other turns with colons": "Human: [5, 6, 70, 80]\nAssistant: [1, 2, 30, 40]\nHuman: [5, 6, 7, 8]",
    "other turns in Markdown": "### User:\n[5, 6, 70, 80]\n\n### Assistant:\n[1, 2, 30, 40]",
    "other turns, tokens stripped": "user\n[5, 6, 70, 80]\nassistant\n[1, 2, 30, 40]\nuser\n[5, 6, 7, 8]",
    "its own turn, then others": "[1, 2, 30, 40]\nHuman: [5, 6, 70, 80]\nAssistant: [5, 6, 70, 80]",
    "its own role and a colon": "It is there.\nAssistant: [1, 2, 30, 40]",
    "a label that is a role": "Human: [1, 2, 30, 40]",
    "an ornament": "好的~~答案是[1, 2, 30, 40]~~",
    "another turn": f"{GOOD}\n<|im_start|>user\n{DECOY}",
    "Gemma's turn": f"{GOOD}<end_of_turn>\n<start_of_turn>user\n{DECOY}",
    "another turn, tokens stripped": f"[1, 2, 30, 40]\nuser\nAnd {DECOY}?",
    "its own role": f"assistant\n{GOOD}",
    "the phrase in quotes": 'The region "Gate (5, 6, 70, 80)" is at [1, 2, 30, 40].',
    "the phrase without quotes": "Gate [5, 6, 70, 80] is at [1, 2, 30, 40].",
    "the phrase after a key": 'For "bbox_2d: [5, 6, 70, 80]": ["{"bbox_2d": [1, 2, 30, 40], "label": "x"}]',
    "words in quotes": 'The sign says "Room [7, 8, 9, 10]" and stands at [1, 2, 30, 40].',
    "an answer in an answer": '<answer>["{"bbox_2d": [1, 2, 30, 40], "label": "an <answer> [5, 6, 7, 8]"}]</answer>',
    "a label that ends thoughts": '[{"bbox_2d": [1, 2, 30, 40], "label": "a </think> [5, 6, 70, 80]"}]',
    "a refusal after it": "It is at [1, 2, 30, 40]. There is no other.",
}


@pytest.mark.parametrize("text", BESIDE.values(), ids=BESIDE)
def test_the_answer_beside_a_decoy(text: str) -> None:
    for codec, before in ((INSTRUCT, ""), (THINKING, "Hm.\n</think>\n")):
        grounding = codec.parse(before + text, size=SIZE, phrase="Gate [5, 6, 70, 80]")
        assert grounding.box == BOX
        assert [item.box for item in grounding.boxes] == [BOX]


ALONE: dict[str, tuple[str, Failure]] = {
    "a tool call": (f"<tool_call>\n{CALL}\n</tool_call>", Failure.NO_BOX),
    "a tool call in plain JSON": (CALL, Failure.NO_BOX),
    "a tool's arguments": ('{"label": "it", "bbox_2d": [5, 6, 70, 80], "img_idx": 0}', Failure.NO_BOX),
    "thoughts": (f"<thinking>{DECOY}", Failure.NO_BOX),
    "the phrase said again": ('You asked for "Gate [5, 6, 70, 80]".', Failure.NO_BOX),
    "a refusal": ("I cannot see it, only apples [5, 6, 70, 80].", Failure.REFUSED),
    "a refusal in Chinese": ("未找到，只有苹果[5, 6, 70, 80]。", Failure.REFUSED),
    "denied": ("It is not [5, 6, 70, 80].", Failure.NO_BOX),
    "thoughts of Kimi cut off": ("◁think▷[5, 6, 70, 80]", Failure.NO_BOX),
    "thoughts of gpt-oss cut off": (f"<|channel|>analysis<|message|>{DECOY}", Failure.NO_BOX),
    "rejected": (f'{{"rejected": [{DECOY}], "final": null}}', Failure.NO_BOX),
    "an empty list's comment": (f"[]\nThe nearest is {DECOY}", Failure.REFUSED),
    "an empty fence's comment": ("```json\n[]\n```\nThe nearest is [5, 6, 70, 80].", Failure.REFUSED),
    "a thousands separator": ('{"bbox_2d": [1,000, 200, 300]}', Failure.MALFORMED),
    "another turn": (f"Nothing.<|im_end|>\n<|im_start|>user\n{DECOY}", Failure.REFUSED),
}


@pytest.mark.parametrize(("text", "failure"), ALONE.values(), ids=ALONE)
def test_a_decoy_alone_is_no_box(text: str, failure: Failure) -> None:
    grounding = INSTRUCT.parse(text, size=SIZE, phrase="Gate [5, 6, 70, 80]")
    assert (grounding.failure, grounding.boxes) == (failure, ())


def test_a_phrase_with_a_box_tag() -> None:
    text = "<ref>the <box>[[5, 6, 70, 80]]</box></ref><box>[[1, 2, 30, 40]]</box><ref>a</ref><box>[[1, 2, 3, 4]]</box>"
    assert [item.box for item in INTERNVL.parse(text, size=SIZE).boxes] == [BOX, Box(1, 2, 3, 4)]


def test_a_phrase_that_denies_is_no_refusal() -> None:
    phrase = "the man who is not in the picture frame"
    assert INTERNVL.parse(f"{phrase}[[1, 2, 30, 40]]", size=SIZE, phrase=phrase).box == BOX


def test_the_phrases_own_numbers_answer_in_the_familys_form() -> None:
    grounding = INSTRUCT.parse('[{"bbox_2d": [5, 6, 70, 80]}]', size=SIZE, phrase="Gate [5, 6, 70, 80]")
    assert grounding.box == Box(5, 6, 70, 80)


REFUSALS = [
    *("[]", "[ ]", "null", "{}", '{"objects": []}', '{"bbox_2d": null}', '{"bbox_2d": []}', '{"bbox_2d": "None"}'),
    *('{"found": false}', '{"found": false, "bbox_2d": [0, 0, 0, 0]}', '{"bbox_2d": [-1, -1, -1, -1]}', "[0, 0, 0, 0]"),
    *("<box>[[0, 0, 0, 0]]</box>", '{"bbox_2d": [0.0, 0.0, 0.0, 0.0], "label": "cow"}', "It is at [-1, -1, -1, -1]."),
    *('[{"bbox_2d": null, "label": "cow"}]', "```json\n[]\n```", "The result is: []", '{"bbox": "not found"}'),
    *("No.", "None", "N/A", "Nothing", "No people here.", "no people here", "No matching object found."),
    *("There are no cows in this image.", "I couldn't find any cow.", "No cow is visible.", "It was not detected."),
    *("nothing matches the description", "The cow is not shown.", "There seems to be no cow."),
    *(
        "未找到符合描述的目标。",
        "图中未检测到绿色的牛。",
        "未发现该物体",
        "图中并无绿色的牛",
        "找不到该目标",
        "無",
        "无",
    ),
    *("图片中看不到绿色的牛", "该图像不包含绿色的牛", "圖中沒有牛", "牛は見つかりません。", "소가 없습니다."),
    *("No hay ninguna vaca.", "Aucune vache.", "Die Kuh ist nicht zu sehen."),
]


@pytest.mark.parametrize("text", REFUSALS)
def test_no_such_thing_is_a_refusal(text: str) -> None:
    for codec in (INSTRUCT, *([] if text.startswith("<box>") else [get_codec("qwen2_5_vl")]), INTERNVL):
        assert codec.parse(text, size=SIZE).failure is Failure.REFUSED
    assert THINKING.parse(f"Hm.</think>{text}", size=SIZE).failure is Failure.REFUSED


DOUBTS = [
    *("I cannot be sure, but", "I can't be 100% certain:", "I am unable to be entirely exact.", "I can't help but say"),
    *(
        "I cannot say for certain, but it is at",
        "We can't tell with absolute certainty:",
        "Not able to be very precise:",
    ),
    *("Sorry for the confusion,", "I can not guarantee it:", "I cannot rule out others."),
]


@pytest.mark.parametrize("text", DOUBTS)
def test_a_doubt_is_no_refusal(text: str) -> None:
    assert INSTRUCT.parse(f"{text} [1, 2, 30, 40]", size=SIZE).box == BOX
    assert INSTRUCT.parse(f"{text} I cannot see it. [1, 2, 30, 40]", size=SIZE).failure is Failure.REFUSED


def test_zeros_beside_a_box_are_none_of_it() -> None:
    assert INSTRUCT.parse(f'[{{"bbox_2d": [0, 0, 0, 0]}}, {GOOD}]', size=SIZE).boxes[0].box == BOX
    assert INSTRUCT.parse('{"bbox_2d": [0, 0, 0, 5]}', size=SIZE).failure is Failure.DEGENERATE


@pytest.mark.parametrize(
    "text", ["It is on the left.", "The nonesuch over there.", "Now I look.", "7", '{"label": "no dog"}']
)
def test_words_that_do_not_refuse(text: str) -> None:
    assert INSTRUCT.parse(text, size=SIZE).failure is Failure.NO_BOX


def test_a_size_that_no_picture_has_raises_nothing() -> None:
    assert INSTRUCT.parse(GOOD, size=(10**400, 10**400)).boxes == ()


def test_labels_with_any_punctuation_stay_as_they_are() -> None:
    answer: list[dict[str, Any]] = [{"bbox_2d": [1, 2, 30, 40], "label": "“招牌”（红色），左"}]
    grounding = INSTRUCT.parse(json.dumps(answer, ensure_ascii=False), size=SIZE)
    assert (grounding.boxes[0].label, grounding.repairs) == ("“招牌”（红色），左", ())
