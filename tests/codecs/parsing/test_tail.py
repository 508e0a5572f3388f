"""Answers that were ended behind their box: the box of the whole, and nothing held against the model."""

from __future__ import annotations

import pytest

from egm.boxes import Box
from egm.codecs import get_codec
from egm.codecs.parsing.strict import close_tail
from egm.datasets.synthetic import SynthRef
from egm.types import STOP_STRING, Failure

SIZE = (1000, 1000)
BOX = Box(1, 2, 30, 40)
INSTRUCT = get_codec("qwen3_vl_instruct")
ENTRY = '{"bbox_2d": [1, 2, 30, 40], "label": "it"}'
NOWHERE = '{"bbox_2d": [5, 5, 5, 5], "label": "it"}'
WHOLE = {
    "bare": ENTRY,
    "a list": f"[{ENTRY}]",
    "in a fence": f"```json\n[\n\t{ENTRY}\n]\n```",
    "an object in a fence": f"```json\n{ENTRY}\n```",
    "a line each": '[\n  {\n    "bbox_2d": [1, 2, 30, 40],\n    "label": "it"\n  }\n]',
    "words before a fence": f"Here it is:\n```json\n[{ENTRY}]\n```",
    "another key": f"[{ENTRY.replace('bbox_2d', 'bbox')}]",
    "several": f"[{ENTRY}, {ENTRY.replace('30', '99')}]",
}


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_vl_instruct", "qwen2_5_vl"])
def test_a_target_ends_before_its_tail_with_its_box(name: str) -> None:
    codec, seen = get_codec(name), {"seen_size": SIZE} if name == "qwen2_5_vl" else {}
    assert codec.tail_stops == ('"label"',)
    for sample in (sample for scene in range(3) for sample in SynthRef("val").samples(scene)):
        assert sample.box is not None
        thought = f'A "label" in [{{"bbox_2d": [5, 5, 9, 9], "label": "x"}}]. {sample.rationale}'
        whole = codec.target(sample.phrase, sample.box, size=SIZE, rationale=thought)
        facts = {"size": SIZE, "amodal": True, "phrase": sample.phrase, **seen}
        places = [at for at in range(len(whole)) if whole.startswith('"label"', at)]
        ends = [codec.ends_before_tail(whole[:at], **facts) for at in places]
        assert ends == [False, False, True]
        cut = codec.parse(whole[: places[-1]], finish_reason=STOP_STRING, **facts)
        assert (cut.box, cut.repairs, cut.tail_cut) == (codec.parse(whole, **facts).box, (), True)
        assert codec.ends_before_tail(whole, **facts) is None  # it ended by itself


@pytest.mark.parametrize("whole", WHOLE.values(), ids=WHOLE)
def test_what_is_open_is_closed(whole: str) -> None:
    cut = whole.partition('"label"')[0]
    assert INSTRUCT.ends_before_tail(cut, size=SIZE) is True
    grounding, full = INSTRUCT.parse(cut, size=SIZE, finish_reason=STOP_STRING), INSTRUCT.parse(whole, size=SIZE)
    assert (grounding.box, grounding.failure, grounding.repairs) == (BOX, None, full.repairs)
    assert (full.box, full.tail_cut, grounding.text) == (BOX, False, cut)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("[{", False),  # the label first
        ('[{"bbox_2d": [1, 2, 30], ', False),
        ('[{"bbox_2d": [5, 5, 5, 5], ', False),  # another may follow
        (f'[{NOWHERE}, {{"bbox_2d": [1, 2, 30, 40], ', True),
        ('{"rejected": [{"bbox_2d": [1, 2, 30, 40], ', False),
        ('<thinking>```json\n[{"bbox_2d": [1, 2, 30, 40], ', False),
        ('<think>[{"bbox_2d": [1, 2, 30, 40], ', False),
        ("There is no such thing.", None),
        (f"[{ENTRY}]", None),
        ("", None),
    ],
)
def test_it_goes_on_where_there_is_no_box_yet(text: str, ends: bool | None) -> None:
    assert INSTRUCT.ends_before_tail(text, size=SIZE) is ends


def test_a_thought_that_looks_like_an_answer_is_none() -> None:
    assert get_codec("qwen3_vl").ends_before_tail('[{"bbox_2d": [1, 2, 30, 40], ', size=SIZE) is False


def test_an_answer_that_stays_broken_is_read_as_ever() -> None:
    text = "[{'bbox_2d': [1, 2, 30, 40], "
    assert close_tail(text) is None
    grounding = INSTRUCT.parse(text, size=SIZE, finish_reason=STOP_STRING)
    assert (grounding.box, grounding.repairs) == (BOX, ("broken_json",))
    assert INSTRUCT.parse("[{", size=SIZE, finish_reason=STOP_STRING).failure is Failure.TRUNCATED


def test_only_families_whose_label_comes_after_the_box_have_a_tail() -> None:
    for name in ("qwen3_vl", "qwen3_vl_instruct", "qwen2_5_vl", "internvl"):
        codec = get_codec(name)
        answer = codec.answer("the cup", (1, 2, 30, 40))
        rest = answer.removeprefix(codec.opening("the cup")).removeprefix("1, 2, 30, 40")
        assert bool(codec.tail_stops) == ("the cup" in rest)
        assert all(stop in rest and stop not in codec.opening("the cup") for stop in codec.tail_stops)
