"""What is asked, taught and read where not exactly one box is expected."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egm.boxes import Box
from egm.codecs import Codec, Repair, get_codec
from egm.codecs.parsing.reading import MAX_BOXES
from egm.errors import EgmError
from egm.types import Expect, Failure

SIZE = (1000, 1000)
INSTRUCT = get_codec("qwen3_vl_instruct")
FAMILIES = ["qwen3_vl", "qwen3_vl_instruct", "qwen2_5_vl", "internvl"]
BY_NAME = {
    "gemini": 'Detect everything that matches the description "the cup". The box_2d should be',
    "glm_v": "Please pinpoint the bounding box [[x1,y1,x2,y2], …] in the image as per the given description. the cup",
    "paligemma": "detect the cup",
    "florence2": "<CAPTION_TO_PHRASE_GROUNDING>the cup",
    "kosmos2": "<grounding><phrase> the cup</phrase>",
    "deepseek_vl2": "Locate <|ref|>the cup<|/ref|> in the given image.",
    "rex_omni": "Detect the cup.",
    "ground_anything": "Locate all the instances that match the following categories: the cup.",
    "locate_anything": "Locate all the instances that match the following description: the cup.",
    "moondream": "detect: the cup",
}
"""Families asked for by name, whose prompts ask for all boxes."""
A, B = Box(0, 0, 100, 100), Box(200, 200, 300, 300)

NOTHING = {
    "empty list": "[]",
    "empty list in a fence": "```json\n[]\n```",
    "empty objects": '{"objects": []}',
    "null": "null",
    "null box": '{"bbox_2d": null}',
    "null box in a list": '[{"bbox_2d": null, "label": "it"}]',
    "empty box": '{"bbox_2d": []}',
    "word for a box": '{"bbox_2d": "None"}',
    "zeros": '[{"bbox_2d": [0, 0, 0, 0]}]',
}
WORDS = [
    "None",
    "none.",
    "There is no red cup in the image.",
    "No such object.",
    "I cannot find the dog.",
    "Sorry, the picture does not show a dog.",
    "The dog is not visible.",
    "无法找到该物体",
    "图中没有狗",
]
DECLINES = ["I'm sorry, I can't help with that.", "I cannot answer.", "抱歉", "It is not possible to say."]


@pytest.mark.parametrize("expect", ["any", "all"])
@pytest.mark.parametrize("text", NOTHING.values(), ids=NOTHING)
def test_nothing_matches_is_an_answer_where_it_may_be(text: str, expect: Expect) -> None:
    read = INSTRUCT.parse(text, size=SIZE, expect=expect)
    assert (read.box, read.failure, read.boxes, read.is_none, read.repairs) == (None, None, (), True, ())
    usual = INSTRUCT.parse(text, size=SIZE)
    assert (usual.failure, usual.is_none) == (Failure.REFUSED, False)


@pytest.mark.parametrize("text", WORDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_words_say_so_too(family: str, text: str) -> None:
    codec = get_codec(family)
    answer = f"</think>{text}" if codec.thinking_prefilled else text
    read = codec.parse(answer, size=SIZE, expect="all")
    assert read.is_none
    assert read.repairs == (Repair.IN_WORDS,)
    assert codec.parse(answer, size=SIZE).failure is Failure.REFUSED


@pytest.mark.parametrize("text", DECLINES)
def test_to_decline_is_no_answer(text: str) -> None:
    for expect in ("one", "any", "all"):
        read = INSTRUCT.parse(text, size=SIZE, expect=expect)  # type: ignore[arg-type]
        assert (read.failure, read.is_none) == (Failure.REFUSED, False)


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", Failure.NO_BOX),
        ("It is at the left.", Failure.NO_BOX),
        ('[{"bbox_2d": [1, 2', Failure.TRUNCATED),
        ('{"bbox_2d": [1, 2]}', Failure.MALFORMED),
        ('{"bbox_2d": [5, 5, 1, 1]}', Failure.DEGENERATE),
        ('[{"bbox_2d": null}, {"bbox_2d": [1, 2]}]', Failure.REFUSED),
    ],
)
def test_other_failures_stay_failures(text: str, failure: Failure) -> None:
    for expect in ("one", "any", "all"):
        assert INSTRUCT.parse(text, size=SIZE, expect=expect).failure is failure  # type: ignore[arg-type]


def test_the_boxes_that_count_are_the_first_or_all() -> None:
    text = INSTRUCT.target("it", [A, B], size=SIZE)
    for expect, counted in (("one", (A,)), ("any", (A,)), ("all", (A, B))):
        read = INSTRUCT.parse(text, size=SIZE, expect=expect)  # type: ignore[arg-type]
        assert (read.box, read.answered) == (A, counted)
        assert [each.box for each in read.boxes] == [A, B]


@pytest.mark.parametrize("family", [*FAMILIES, *BY_NAME])
@settings(max_examples=30)
@given(st.lists(st.tuples(*[st.integers(0, 499)] * 2, *[st.integers(500, 1000)] * 2), min_size=1, max_size=5))
def test_targets_are_read_back(family: str, numbers: list[tuple[int, int, int, int]]) -> None:
    codec, boxes = get_codec(family), [Box(*each) for each in numbers]
    text = codec.target("the cup", boxes, size=SIZE, rationale="They are there.", seen_size=SIZE)
    read = codec.parse(text, size=SIZE, seen_size=SIZE, expect="all")
    assert (len(read.answered), read.repairs) == (len(boxes), ())
    units = max(1.0, max(SIZE) / min(codec.scale(SIZE, SIZE).span))  # in pixels
    for box, true in zip(read.answered, boxes, strict=True):
        assert tuple(box) == pytest.approx(tuple(true), abs=0 if family in FAMILIES else 1.5 * units)
    assert {each.label for each in read.boxes} <= {"the cup", None}
    assert family in {"glm_v", "moondream"} or read.boxes[0].label == "the cup"


@pytest.mark.parametrize("family", BY_NAME)
def test_families_that_are_asked_by_name_are_asked_for_all_in_their_own_words(family: str) -> None:
    codec = get_codec(family)
    codec.check_expect("all")
    every = asked(codec, expect="all")
    assert every.startswith(BY_NAME[family])
    assert "<|box_start|>" not in every, "a word of a family's own is known to it, and no special token is put in"
    assert ("answer []" in every) == (family == "gemini")


@pytest.mark.parametrize("family", ["gemini", "rex_omni", "ground_anything", "locate_anything", "moondream"])
def test_a_familys_own_word_for_none_is_taught_and_read_back(family: str) -> None:
    codec = get_codec(family)
    read = codec.parse(codec.target("the cup", [], size=SIZE), size=SIZE, expect="all")
    assert (read.is_none, read.repairs) == (True, ())


@pytest.mark.parametrize("family", ["qwen_vl", "qwen2_vl", "seed_vl"])
def test_families_without_a_question_for_all_refuse_it(family: str) -> None:
    codec = get_codec(family)
    with pytest.raises(EgmError, match="has no answer for several boxes: ask for one box"):
        codec.messages("it", expect="all")
    with pytest.raises(EgmError, match=r"has no answer for 'nothing matches': ask for one box$"):
        codec.messages("it", expect="any")


@pytest.mark.parametrize("family", FAMILIES)
def test_one_box_is_taught_as_ever(family: str) -> None:
    codec = get_codec(family)
    for rationale in (None, "It is there."):
        said = codec.target("a <b>", A, size=SIZE, rationale=rationale)
        assert codec.target("a <b>", [A], size=SIZE, rationale=rationale) == said


@pytest.mark.parametrize("family", FAMILIES[:3])
def test_nothing_is_taught_and_read_back(family: str) -> None:
    codec = get_codec(family)
    text = codec.target("it", [], size=SIZE, rationale="There is no cup.")
    assert codec.parse(text, size=SIZE, expect="any").is_none
    assert codec.parse(text, size=SIZE, expect="any").repairs == ()


def asked(codec: Codec, **how: str) -> str:
    return str(codec.messages("the cup.", **how)[0]["content"][-1]["text"])  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("style", ["qwen3", "grounding"])
def test_prompts_say_what_is_expected(family: str, style: str) -> None:
    codec = get_codec(family)
    assert asked(codec, prompt=style, expect="one") == asked(codec, prompt=style)
    every = asked(codec, prompt=style, expect="all")
    assert ("every object" in every or "all regions" in every) and "the cup" in every  # noqa: PT018
    assert ("answer []" in every) == bool(codec.none)
    if codec.none:
        assert asked(codec, prompt=style, expect="any").removesuffix(
            " If nothing in the image matches, answer []."
        ) == (asked(codec, prompt=style))


def test_what_a_family_cannot_answer_is_not_asked() -> None:
    internvl = get_codec("internvl")
    for ask in (lambda: internvl.messages("it", expect="any"), lambda: internvl.target("it", [], size=SIZE)):
        with pytest.raises(EgmError, match="codec 'internvl' has no answer for 'nothing matches'"):
            ask()
    internvl.check_expect("all")

    class Bare(Codec):
        name = "bare"

        def opening(self, phrase: str) -> str:
            return "["

        def answer(self, phrase: str, numbers: tuple[int, int, int, int]) -> str:
            return str(list(numbers))

    with pytest.raises(EgmError, match="codec 'bare' has no answer for several boxes: ask for one box"):
        Bare().messages("it", expect="all")
    with pytest.raises(EgmError, match="unknown expect 'none': did you mean"):
        INSTRUCT.messages("it", expect="none")  # type: ignore[arg-type]


def test_thousands_of_boxes_are_bounded() -> None:
    boxes = [Box(x % 999, 0, x % 999 + 1, 9) for x in range(5000)]
    read = INSTRUCT.parse(INSTRUCT.target("it", boxes, size=SIZE), size=SIZE, expect="all")
    assert len(read.answered) == MAX_BOXES
    assert read.repairs == (Repair.TOO_MANY,)
    assert list(read.answered) == boxes[:MAX_BOXES]


@pytest.mark.parametrize("family", BY_NAME)
def test_thousands_of_boxes_are_bounded_in_every_form(family: str) -> None:
    codec = get_codec(family)
    read = codec.parse(codec.target("it", [Box(100, 100, 400, 400)] * 5000, size=SIZE), size=SIZE, expect="all")
    assert (len(read.answered), read.repairs) == (MAX_BOXES, (Repair.TOO_MANY,))


def test_a_thinking_budget_leaves_open_whether_there_is_a_box() -> None:
    codec = get_codec("qwen3_vl")
    assert codec.answer_prefill("Let me see", "it").endswith('"bbox_2d": [')
    assert codec.answer_prefill("Let me see", "it", expect="any") == "\n</think>\n\n"
