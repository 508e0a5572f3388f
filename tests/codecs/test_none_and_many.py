"""What is asked, taught and read where not exactly one box is expected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egm.boxes import Box
from egm.codecs import Codec, Repair, get_codec
from egm.codecs.parsing.reading import MAX_BOXES
from egm.errors import EgmError
from egm.types import Expect, Failure

SIZE = (1000, 1000)
INSTRUCT = get_codec("qwen3_vl_instruct")
FAMILIES = ["qwen3_vl", "qwen3_vl_instruct", "qwen2_5_vl", "internvl"]
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


@pytest.mark.parametrize("family", FAMILIES)
@given(st.lists(st.tuples(*[st.integers(0, 499)] * 2, *[st.integers(500, 1000)] * 2), min_size=1, max_size=5))
def test_targets_are_read_back(family: str, numbers: list[tuple[int, int, int, int]]) -> None:
    codec, boxes = get_codec(family), [Box(*each) for each in numbers]
    text = codec.target("the cup", boxes, size=SIZE, rationale="They are there.", seen_size=SIZE)
    read = codec.parse(text, size=SIZE, seen_size=SIZE, expect="all")
    assert (list(read.answered), read.repairs) == (boxes, ())
    assert {each.label for each in read.boxes} == {"the cup"}


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


def test_a_thinking_budget_leaves_open_whether_there_is_a_box() -> None:
    codec = get_codec("qwen3_vl")
    assert codec.answer_prefill("Let me see", "it").endswith('"bbox_2d": [')
    assert codec.answer_prefill("Let me see", "it", expect="any") == "\n</think>\n\n"
