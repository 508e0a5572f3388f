"""Rewards: each formula by hand, modifiers that never pay for a fault, and the same accuracy as evaluation."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from egm.backends import ScriptedBackend
from egm.boxes import Box, giou, iou
from egm.codecs import get_codec
from egm.errors import DataError
from egm.evaluate import evaluate
from egm.grounder import Grounder
from egm.models import build_processor
from egm.training.grpo.grading import grade
from egm.training.grpo.prompts import PromptCollator
from egm.training.rewards.reward import Reward, RewardSection
from egm.types import Completion, Sample

CODEC = get_codec("qwen3_vl")
SIZE = (200, 100)
TRUTH = Box(20, 10, 120, 60)
ALL = ("mix", "iou", "iou_squared", "giou_below", "sigmoid", "normalised_exp")


def reward(*kinds: str, **section: Any) -> Reward:
    terms = {"terms": [{"kind": kind} for kind in kinds]} if kinds else {}
    return Reward(RewardSection.model_validate(terms | section), CODEC)


def text(box: Box, rationale: str | None = "It is there.") -> str:
    return CODEC.target("it", box, size=SIZE, rationale=rationale)


def one(function: Reward, completion: str, tokens: int = 10) -> float:
    return function([None], [completion], [range(tokens)], truth=[tuple(TRUTH)], size=[SIZE])[0]


NEAR, FAR = Box(20, 10, 110, 60), Box(150, 70, 200, 100)
HIT = iou(NEAR, TRUTH)  # 0.9


@pytest.mark.parametrize(
    ("kind", "near", "far"),
    [
        ("mix", 0.5 + 0.5 * HIT, 0.0),
        ("iou", HIT, 0.0),
        ("iou_squared", HIT**2, 0.0),
        ("giou_below", HIT, giou(FAR, TRUTH)),
        ("sigmoid", 1 / (1 + math.exp(-8 * (HIT - 0.5))), 1 / (1 + math.exp(4))),
        ("normalised_exp", (1 - 16**-HIT) / (1 - 1 / 16), 0.0),
    ],
)
def test_each_formula(kind: str, near: float, far: float) -> None:
    assert abs(HIT - 0.9) < 1e-9
    assert one(reward(kind), text(NEAR)) == pytest.approx(near)
    assert one(reward(kind), text(FAR)) == pytest.approx(far)


@pytest.mark.parametrize("kind", ALL)
def test_a_perfect_box_earns_most_and_no_box_least(kind: str) -> None:
    boxes = [TRUTH, NEAR, Box(60, 10, 160, 60), FAR]
    values = [one(reward(kind), text(box)) for box in boxes]
    nothing = one(reward(kind), "</think> I cannot see it.")
    assert values == sorted(values, reverse=True)
    assert nothing <= values[-1]
    assert values[0] == pytest.approx(1 / (1 + math.exp(-4)) if kind == "sigmoid" else 1.0)
    assert nothing == pytest.approx({"giou_below": -1.0, "sigmoid": 1 / (1 + math.exp(4))}.get(kind, 0.0))


def test_giou_tells_misses_apart() -> None:
    nearer = Box(121, 10, 180, 60)
    assert iou(nearer, TRUTH) == iou(FAR, TRUTH) == 0.0
    assert one(reward("giou_below"), text(nearer)) > one(reward("giou_below"), text(FAR))


def test_the_threshold_counts_as_a_hit() -> None:
    half = Box(20, 10, 70, 60)
    assert iou(half, TRUTH) == 0.5
    assert one(reward("mix"), text(half)) == 0.75


def test_terms_are_weighted_and_summed() -> None:
    section = {"terms": [{"kind": "iou", "weight": 2}, {"kind": "iou_squared"}, {"kind": "iou"}]}
    function = Reward(RewardSection.model_validate(section), CODEC)
    grades = function.grade([text(NEAR)], truths=[TRUTH], sizes=[SIZE])
    assert grades.parts["iou"][0] == pytest.approx(3 * HIT)
    assert grades.totals[0] == pytest.approx(3 * HIT + HIT**2)


OUT_OF_FORM = [
    '</think> {"bbox": [100, 100, 550, 600]}',
    "</think> [100, 100, 550, 600]",
    '</think> [{"bbox_2d": [100, 100, 550, 600]}, {"bbox_2d": [0, 0, 5, 5]}]',
]


@pytest.mark.parametrize("completion", OUT_OF_FORM)
def test_the_gate_multiplies_what_is_out_of_form(completion: str) -> None:
    assert one(reward("iou", format_gate={"factor": 0.25}), completion) == pytest.approx(HIT / 4)
    assert one(reward("iou", format_gate={"factor": 0.25}), text(NEAR)) == pytest.approx(HIT)


def test_the_gate_can_ask_for_reasoning() -> None:
    silent = text(NEAR, None)
    assert one(reward("iou", format_gate={"factor": 0.0}), silent) == pytest.approx(HIT)
    assert one(reward("iou", format_gate={"factor": 0.0, "reasoning": True}), silent) == 0.0


def test_breaking_the_form_never_softens_a_penalty() -> None:
    gated = reward("giou_below", format_gate={"factor": 0.1})
    assert one(gated, "</think> nothing") == -1.0
    assert one(gated, text(FAR).replace("bbox_2d", "bbox")) == one(gated, text(FAR)) < 0


@pytest.mark.parametrize(
    ("tokens", "penalty"), [(1, 0), (256, 0), (257, -1 / 64), (288, -0.5), (320, -1), (321, -1), (4096, -1)]
)
def test_length_is_punished_softly(tokens: int, penalty: float) -> None:
    function = reward("iou", overlong={"limit": 320, "buffer": 64, "weight": 0.5})
    assert one(function, text(TRUTH), tokens) == pytest.approx(1 + 0.5 * penalty)


@pytest.mark.parametrize(
    ("rationale", "punished"),
    [
        ("no " * 7 + "it is there", True),
        ("no " * 6 + "it is there", False),
        ("no\n" * 3 + "no\tno  no no", True),
        ("nono no no no no no no", False),
        ("a b " * 20, False),
    ],
)
def test_repeated_words_are_punished(rationale: str, punished: bool) -> None:
    value = one(reward("iou", repetition={"run": 7, "penalty": 0.3}), text(TRUTH, rationale))
    assert value == pytest.approx(0.7 if punished else 1.0)


def test_lengths_must_come_where_they_count() -> None:
    with pytest.raises(DataError, match="overlong counts tokens"):
        reward(overlong={"limit": 320})([None], ["x"], truth=[tuple(TRUTH)], size=[SIZE])


@given(st.text(max_size=200), st.lists(st.sampled_from(ALL), min_size=1, max_size=3))
def test_any_text_has_a_finite_reward(completion: str, kinds: list[str]) -> None:
    function = reward(*kinds, format_gate={}, overlong={"limit": 20, "buffer": 5}, repetition={})
    assert math.isfinite(one(function, "</think>" + completion))


def test_a_message_is_read_as_its_text() -> None:
    parts = [{"type": "text", "text": part} for part in text(NEAR).partition("</think>")]
    for content in (text(NEAR), parts):
        message = [{"role": "assistant", "content": content}]
        same = reward()([None], [message], [[1]], truth=[tuple(TRUTH)], size=[SIZE], other=["column"])
        assert same == [one(reward(), text(NEAR))]


NO_TEXTS: list[Any] = [None, b"[1, 2, 3, 4]", 5, [], ["x"], {"content": "x"}, [{"role": "assistant"}]]
NO_TEXTS += [[{"content": None}], [{"content": []}], [{"content": [{"type": "image"}]}], [{"content": b"x"}]]


@pytest.mark.parametrize("completion", NO_TEXTS)
def test_a_completion_without_text_is_refused(completion: Any) -> None:
    with pytest.raises(DataError, match=r"^completion .* is no text"):
        reward()([None], [completion], truth=[tuple(TRUTH)], size=[SIZE])


@pytest.mark.parametrize(
    "section", [{"terms": []}, {"terms": [{"kind": "iuo"}]}, {"terms": [{"kind": "iou", "alpha": 1}]}, {"gate": {}}]
)
def test_wrong_sections_are_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RewardSection.model_validate(section)


def answers(count: int, seed: int = 0) -> list[tuple[Sample, Completion]]:
    """Samples on pictures of odd sizes, some amodal, with answers of every quality."""
    rng = random.Random(seed)
    result = []
    for number in range(count):
        size = (rng.randint(20, 400), rng.randint(20, 400))
        truth = Box(0.1 * size[0], 0.2 * size[1], 0.6 * size[0], 0.8 * size[1])
        amodal = number % 3 == 0
        image = Image.new("RGB", size)
        sample = Sample(f"s{number}", image, f"thing {number};", truth, size, amodal=amodal)
        corners = [rng.randint(-60, 300), rng.randint(60, 400), rng.randint(400, 900), rng.randint(600, 1100)]
        shape = rng.choice(
            [
                '</think> [{{"bbox_2d": {0}}}]',
                "so.</think> {0}",
                'no end {{"bbox_2d": {0}',
                "</think> none",
                '</think> ({0}) "',
                '</think> [{{"bbox_2d": {0}, "label": "a "b" c"}}]',
            ]
        )
        result.append((sample, Completion(shape.format(corners), rng.choice(["stop", "length"]))))
    return result


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_vl_instruct", "internvl"])
def test_the_trainer_reads_with_the_phrase_as_evaluation_does(name: str) -> None:
    asked = [
        ("sign [100,100,550,600]", "the sign [100,100,550,600]", False),
        (" none of the dogs ", "None of the dogs: [100, 100, 550, 600]", True),
        ("the man who cannot swim", "the man who cannot swim (100, 100), (550, 600)", True),
        ("没有门的房子", "没有门的房子 [100, 100, 550, 600]", True),
    ]
    samples = [Sample(phrase, Image.new("RGB", SIZE), phrase, TRUTH, SIZE) for phrase, _, _ in asked]
    replies, codec, processor = (
        [f"So.\n</think>\n\n{words}" for _, words, _ in asked],
        get_codec(name),
        build_processor(),
    )
    found = Grounder(ScriptedBackend(replies), codec).ground_many(samples)
    eos = processor.tokenizer.eos_token_id
    ids = [[*processor.tokenizer(reply)["input_ids"], eos] for reply in replies]
    function, prompts = Reward(RewardSection(), codec), PromptCollator(processor, codec, None)(samples)
    texts, grades = grade(function, prompts, range(len(samples)), ids, processor.tokenizer, [eos])
    assert texts == replies
    assert [(g.box, g.failure) for g in grades.groundings] == [(g.box, g.failure) for g in found]
    assert [grounding.box is not None for grounding in found] == [has_box for _, _, has_box in asked]


def test_accuracy_is_that_of_evaluation(tmp_path: Path) -> None:
    pairs = answers(300)
    grounder = Grounder(ScriptedBackend({sample.phrase: reply for sample, reply in pairs}), CODEC, batch_size=8)
    records = evaluate([sample for sample, _ in pairs], grounder, tmp_path / "run").records
    by_id = {record.id: record for record in records}
    truths = [sample.box for sample, _ in pairs if sample.box is not None]
    sizes = [sample.size for sample, _ in pairs if sample.size is not None]
    grades = reward("iou").grade(
        [reply.text for _, reply in pairs],
        truths=truths,
        sizes=sizes,
        amodal=[sample.amodal for sample, _ in pairs],
        finish_reasons=[reply.finish_reason for _, reply in pairs],
    )
    assert [score.iou for score in grades.scores] == [by_id[sample.id].iou for sample, _ in pairs]
    assert [score.failure for score in grades.scores] == [by_id[sample.id].failure for sample, _ in pairs]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["all"]
    assert 0.1 < grades.accuracy() < 0.9
    assert summary["accuracy"] == pytest.approx(grades.accuracy())
    assert grades.totals.mean() == pytest.approx(summary["mean_iou"])
