"""Misses named by rule and phrases counted, case by case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egm.boxes import Box, iou
from egm.failures import Answered, Miss, Neighbour, classify_miss, phrase_facts, run_notes, usual_cause
from egm.journal import Record
from egm.types import Failure

SIZE = (200, 100)
TRUTH = Box(20, 20, 60, 80)  # 40 x 60
OTHER = Box(100, 20, 140, 80)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (None, Miss.NO_BOX),
        (TRUTH, None),
        (Box(20, 20, 60, 50), None),  # half of it: IoU 0.5 is a hit
        (Box(20, 20, 60, 43), Miss.PART),  # 23/60 = 0.383
        (Box(22, 24, 30, 32), Miss.PART),
        (Box(20, 20, 60, 45), Miss.LOOSE),  # 25/60 = 0.417: inside, but close to half
        (Box(0, 0, 120, 80), Miss.WHOLE),  # 2400/9600
        (Box(0, 0, 200, 100), Miss.WHOLE),
        (Box(40, 20, 80, 80), Miss.LOOSE),  # 1200/3600
        (Box(50, 20, 90, 80), Miss.OTHER),  # 600/4200 = 0.143
        (Box(150, 0, 200, 10), Miss.OTHER),
    ],
)
def test_without_other_objects(box: Box | None, expected: Miss | None) -> None:
    assert classify_miss(box, TRUTH, phrase="a cup", size=SIZE, others=[Neighbour(TRUTH)]) == expected


def test_part_and_whole_are_each_others_mirror() -> None:
    small, large = Box(0, 0, 10, 10), Box(0, 0, 40, 40)
    assert (classify_miss(small, large), classify_miss(large, small)) == (Miss.PART, Miss.WHOLE)


@pytest.mark.parametrize(
    ("category", "other", "expected"),
    [
        ("cup", "cup", Miss.WRONG_SAME_KIND),
        ("cup", "dog", Miss.WRONG_OBJECT),
        (None, "cup", Miss.WRONG_OBJECT),
        ("cup", None, Miss.WRONG_OBJECT),
        (None, None, Miss.WRONG_OBJECT),
    ],
)
def test_another_object(category: str | None, other: str | None, expected: Miss) -> None:
    others = [Neighbour(TRUTH, category), Neighbour(OTHER, other)]
    near = Box(102, 22, 140, 82)
    assert classify_miss(near, TRUTH, phrase="a cup", size=SIZE, category=category, others=others) == expected


def test_the_best_fitting_object_decides_the_kind() -> None:
    others = [Neighbour(Box(100, 20, 170, 80), "dog"), Neighbour(OTHER, "cup")]
    assert classify_miss(OTHER, TRUTH, category="cup", others=others) == Miss.WRONG_SAME_KIND


def test_the_same_object_annotated_twice_is_no_other() -> None:
    truth, twin = Box(0, 0, 100, 100), Box(0, 0, 100, 101)
    box = Box(0, 0, 100, 49.9)  # IoU below 0.5 with both, but 0.499 / 0.494
    assert classify_miss(box, truth, others=[Neighbour(twin)]) == Miss.LOOSE


def test_an_iou_of_half_hits_the_other_object_and_the_mirrored_one_too() -> None:
    half = Box(140, 20, 160, 80)  # of `flipped`
    flipped = TRUTH.mirrored(SIZE[0])
    assert classify_miss(half, TRUTH, phrase="cup", others=[Neighbour(flipped)]) == Miss.WRONG_OBJECT
    assert classify_miss(half, TRUTH, phrase="left cup", size=SIZE) == Miss.MIRRORED


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (90, Miss.LOOSE),  # IoU 0.9 with the truth: the same object, annotated twice
        (89, Miss.WRONG_OBJECT),
    ],
)
def test_the_border_of_the_same_object(width: int, expected: Miss) -> None:
    truth, other = Box(0, 0, 100, 100), Box(0, 0, width, 100)
    box = Box(0, 0, 46, 100)  # a miss of the truth, with 0.46, and a hit of the other, with 0.51
    assert classify_miss(box, truth, others=[Neighbour(other)]) == expected


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (20, Miss.LOOSE),  # 10 of 50: IoU 0.2
        (20.1, Miss.OTHER),
    ],
)
def test_the_border_of_loose(shift: float, expected: Miss) -> None:
    assert classify_miss(Box(shift, 0, 30 + shift, 10), Box(0, 0, 30, 10)) == expected


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Box(0, 0, 39.9, 100), Miss.PART),
        (Box(0, 0, 40, 100), Miss.LOOSE),  # IoU 0.4
        (Box(-9, 0, 91, 10), Miss.PART),  # 91 % of it lies in the true box
        (Box(-11, 0, 89, 10), Miss.OTHER),
    ],
)
def test_the_borders_of_a_part(box: Box, expected: Miss) -> None:
    truth = Box(0, 0, 100, 100)
    assert classify_miss(box, truth) == expected
    assert classify_miss(truth, box) == {Miss.PART: Miss.WHOLE}.get(expected, expected)


def test_another_object_goes_before_part() -> None:
    child = Box(30, 30, 40, 45)
    assert classify_miss(child, TRUTH, others=[Neighbour(child)]) == Miss.WRONG_OBJECT


def test_mirrored_needs_a_side_in_the_phrase_and_the_size() -> None:
    flipped = TRUTH.mirrored(SIZE[0])
    assert tuple(flipped) == (140, 20, 180, 80)
    assert classify_miss(flipped, TRUTH, phrase="the left cup", size=SIZE) == Miss.MIRRORED
    assert classify_miss(flipped, TRUTH, phrase="Rightmost cup", size=SIZE) == Miss.MIRRORED
    assert classify_miss(flipped, TRUTH, phrase="the bright cup", size=SIZE) == Miss.OTHER
    assert classify_miss(flipped, TRUTH, phrase="the left cup") == Miss.OTHER
    # Also where another object stands there: that is what confusing left and right looks like.
    others = [Neighbour(flipped, "cup")]
    assert classify_miss(flipped, TRUTH, phrase="left cup", size=SIZE, others=others) == Miss.MIRRORED
    assert classify_miss(flipped, TRUTH, phrase="red cup", size=SIZE, others=others) == Miss.WRONG_OBJECT


numbers = st.floats(0, 100, allow_nan=False)
boxes = st.builds(
    lambda x, y, width, height: Box(x, y, x + width, y + height), numbers, numbers, st.floats(1, 50), st.floats(1, 50)
)


@given(boxes, boxes, st.lists(st.builds(Neighbour, boxes), max_size=3))
def test_every_miss_has_a_name_and_no_hit_has(box: Box, truth: Box, others: list[Neighbour]) -> None:
    miss = classify_miss(box, truth, phrase="left", size=SIZE, others=others)
    assert (miss is None) == (iou(box, truth) >= 0.5)
    assert miss != Miss.NO_BOX


@pytest.mark.parametrize(
    ("phrase", "relations", "ordinals", "superlatives", "negations"),
    [
        ("red cup", 0, 0, 0, 0),
        ("", 0, 0, 0, 0),
        ("man in red with hat", 0, 0, 0, 0),
        ("left man", 1, 0, 0, 0),
        ("zebra front", 1, 0, 0, 0),
        ("top right corner", 1, 0, 0, 0),
        ("top-right", 1, 0, 0, 0),
        ("on the left side", 1, 0, 0, 0),
        ("to the left of the dog", 1, 0, 0, 0),
        ("in front of the bus", 1, 0, 0, 0),
        ("on top of the table", 1, 0, 0, 0),
        ("right behind the dog", 1, 0, 0, 0),
        ("guy sitting on bench behind the woman", 2, 0, 0, 0),
        ("dog next to the man holding a ball", 2, 0, 0, 0),
        ("cat between the two chairs near window", 2, 0, 0, 0),
        ("person standing", 0, 0, 0, 0),
        ("second from right", 1, 1, 0, 0),
        ("the 3rd one from the left", 1, 1, 0, 0),
        ("last cow", 0, 1, 0, 0),
        ("tallest man", 0, 0, 1, 0),
        ("leftmost cup", 0, 0, 1, 0),
        ("closest to camera", 0, 0, 1, 0),
        ("the most yellow", 0, 0, 1, 0),
        ("guest in vest in the forest, almost at rest", 0, 0, 0, 0),
        ("man not wearing a hat", 0, 0, 0, 1),
        ("the one that isn't red", 0, 0, 0, 1),
        ("cup without handle", 0, 0, 0, 1),
        ("any other than the red", 0, 0, 0, 1),
        ("nothing but another notion", 0, 0, 0, 1),
        ("copyright toppings underneathness", 0, 0, 0, 0),
        ("SECOND MAN FROM THE LEFT", 1, 1, 0, 0),
        ("the tallest man not on the left behind the 2nd bus", 2, 1, 1, 1),
    ],
)
def test_phrases(phrase: str, relations: int, ordinals: int, superlatives: int, negations: int) -> None:
    facts = phrase_facts(phrase)
    assert (facts.relations, facts.ordinals, facts.superlatives, facts.negations) == (
        relations,
        ordinals,
        superlatives,
        negations,
    )
    assert facts.count == relations + ordinals + superlatives + negations
    assert facts.is_complex == (facts.count >= 2)
    assert facts.words == len(phrase.split())


@pytest.mark.parametrize("phrase", ["left " * 20_000, "left and " * 20_000, "a" * 50_000 + "es", "on the " * 20_000])
def test_long_phrases_are_counted_too(phrase: str) -> None:
    phrase_facts(phrase)


# ---- what a run of failures usually means


def record(
    number: int, text: str = "</think> [1, 2]", failure: str | None = None, finish: str | None = "stop"
) -> Record:
    return Record(f"s{number}", "i", "p", (0, 0, 9, 9), text=text, failure=failure, finish_reason=finish)


@pytest.mark.parametrize("kind", list(Failure))
def test_a_kind_of_more_than_half_is_explained_with_an_example(kind: Failure) -> None:
    text = "x" * 5000 + " \x1b]0;title\x07\nSorry,\n\u202eno."
    failed = [Answered(f"s\x1b[2J{number}", text, str(kind)) for number in range(3)]
    right = [Answered("right", "", None)] * 2
    found = usual_cause([*right, *failed], "rollouts")
    assert found is not None
    assert found[0] == kind
    assert found[1].startswith(f"3 of 5 rollouts are {kind}, which usually means: ")
    assert found[1].isprintable()
    assert found[1].endswith("Sorry, \N{REPLACEMENT CHARACTER}no.'")
    assert len(found[1]) < 500
    assert usual_cause([*right, *failed[:2]]) is None  # half is not more than half
    assert usual_cause([]) is None
    assert "s1: an empty text" in str(usual_cause([Answered("s1", "", str(kind))]))


def test_errors_of_the_engine_are_no_answers() -> None:
    errors = [record(number, "", "error", None) for number in range(9)]
    assert run_notes(errors, "qwen3_vl") == []
    [note] = run_notes([*errors, record(9, failure="refused")], None)
    assert note.startswith("1 of 1 answers are refused")


@pytest.mark.parametrize(
    ("texts", "codec", "said"),
    [
        (['[{"bbox_2d": [1, 2, 3, 4]}]'] * 3, "qwen3_vl", True),  # which are read as answers, strict as they are
        (["I think"] * 3, "qwen3_vl", True),
        (["I think"] * 2 + ["So </think> it is"], "qwen3_vl", False),
        (["I think"] * 3, "qwen3_vl_instruct", False),
        (["I think"] * 3, "internvl", False),
        (["I think"] * 3, "a codec of their own", False),
        (["I think"] * 3, None, False),
        (["", " "], "qwen3_vl", False),
    ],
)
def test_a_run_in_which_no_answer_ends_its_thinking_is_told_the_codec(
    texts: list[str], codec: str | None, said: bool
) -> None:
    records = [record(number, text) for number, text in enumerate(texts)]
    assert ["--codec qwen3_vl_instruct asks and reads it" in note for note in run_notes(records, codec)] == [
        True
    ] * said
    # Those that the token limit cut off may have been about to end it.
    cut = [record(number, "I think", "truncated", "length") for number in range(len(texts))]
    assert not any("asks and reads it" in note for note in run_notes([*records[:1], *cut], codec))


FRAME = (640, 480)
SHARES = [(0.1, 0.1, 0.5, 0.5), (0.0, 0.5, 1.0, 1.0), (0.2, 0.3, 0.6, 0.9)]


@pytest.mark.parametrize(
    ("scales", "told"),
    [
        ((1, 1, 1), "most boxes lie within 0 to 1: they look like shares of the picture's sides, such as s0"),
        ((1, 1, None), "most boxes lie within 0 to 1"),
        ((1, None, None), None),
        ((1000, 1000, 1000), "0 of 3 boxes are hits, and 3 would be if they were on the 0-1000 scale, such as s0"),
        ((1000, 1000, "miss"), "0 of 3 boxes are hits, and 2 would be"),
        ((1000, None, None), None),
        ((None, None, None), None),
        (("miss", "miss", "miss"), None),
    ],
)
def test_boxes_on_another_scale_than_pixels_are_told(scales: tuple[int | str | None, ...], told: str | None) -> None:
    records = [record(9, "", "error", None), record(8)]
    for number, (share, scale) in enumerate(zip(SHARES, scales, strict=True)):
        truth = tuple(value * side for value, side in zip(share, FRAME * 2, strict=True))
        box = (600.0, 2.0, 612.0, 9.0)
        if scale is None:
            box = truth
        elif scale != "miss":
            box = tuple(value * scale for value in share)
        facts = {"box": box, "iou": iou(Box(*box), Box(*truth)), "size": FRAME}
        records.append(Record(f"s{number}", "i", "p", truth, **facts))
    notes = run_notes(records, None)
    assert [note[: len(str(told))] for note in notes] == ([] if told is None else [told])
    assert all("must be in pixels of the original picture" in note for note in notes)


def test_true_boxes_within_one_are_told() -> None:
    records = [Record(f"s{n}", "i", "p", share, size=FRAME, box=(1, 2, 99, 98)) for n, share in enumerate(SHARES)]
    [note] = run_notes([*records, record(3)], None)
    assert note.startswith("3 of 4 true boxes lie within 0 to 1 (s0): they look like shares")
