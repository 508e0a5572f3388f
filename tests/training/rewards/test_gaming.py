"""Rewards where not exactly one box is expected: answers that play for the reward earn less than honest ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from egm.boxes import Box
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.training.rewards.reward import Reward, RewardSection
from egm.types import Sample

CODEC = get_codec("qwen3_vl_instruct")
TERMS = ("mix", "iou", "iou_squared", "giou_below", "sigmoid", "normalised_exp")


@dataclass(frozen=True)
class Question:
    sample: Sample
    objects: list[Box]

    @property
    def truths(self) -> tuple[Box, ...]:
        assert self.sample.truths is not None
        return self.sample.truths

    def text(self, boxes: Sequence[Box]) -> str:
        assert self.sample.size is not None
        return CODEC.target(self.sample.phrase, boxes, size=self.sample.size)


Policy = Callable[[Question, random.Random], Sequence[Box]]


def questions() -> list[Question]:
    source = SynthRef("train-any", scenes=40)
    return [
        Question(traced.sample, [Box(*item.visible) for item in traced.scene.objects])
        for index in range(40)
        for traced in source.traced(index)
    ]


def shifted(box: Box, chance: random.Random) -> Box:
    """A box as a model that sees well draws it: an IoU of about 0.8 with the true one."""
    x, y = (chance.uniform(-0.07, 0.07) * side for side in (box.width, box.height))
    return Box(max(0, box.x1 + x), max(0, box.y1 + y), box.x2 + x, box.y2 + y)


def honest(question: Question, chance: random.Random) -> Sequence[Box]:
    """One answer in ten is about something else, as a model's is that means well."""
    if chance.random() < 0.1:
        return [chance.choice(question.objects)]
    return [shifted(box, chance) for box in question.truths]


def everything(question: Question, chance: random.Random) -> Sequence[Box]:
    return question.objects


def nothing(question: Question, chance: random.Random) -> Sequence[Box]:
    return []


def duplicates(question: Question, chance: random.Random) -> Sequence[Box]:
    return [box for box in honest(question, chance) for _ in range(2)]


def near_duplicates(question: Question, chance: random.Random) -> Sequence[Box]:
    return [shifted(box, chance) for box in question.truths for _ in range(3)]


def one_huge(question: Question, chance: random.Random) -> Sequence[Box]:
    assert question.sample.size is not None
    return [Box(0, 0, *question.sample.size)]


def one_more(question: Question, chance: random.Random) -> Sequence[Box]:
    return [*honest(question, chance), chance.choice(question.objects)]


def always_one(question: Question, chance: random.Random) -> Sequence[Box]:
    """Right wherever there is something, but never that there is nothing, and never the second."""
    return [shifted((*question.truths, *question.objects)[0], chance)]


GAMES: tuple[Policy, ...] = (everything, nothing, duplicates, near_duplicates, one_huge, one_more, always_one)
QUESTIONS = questions()


def earned(policy: Policy, reward: Reward) -> np.ndarray:
    chance = random.Random(0)
    return reward.grade(
        [question.text(policy(question, chance)) for question in QUESTIONS],
        truths=[question.truths for question in QUESTIONS],
        sizes=[question.sample.size or (1, 1) for question in QUESTIONS],
        expects=[question.sample.expect for question in QUESTIONS],
        phrases=[question.sample.phrase for question in QUESTIONS],
        tokens=[100] * len(QUESTIONS),
    ).totals


@pytest.mark.parametrize("gate", [{}, {"format_gate": {"factor": 0.5}}])
@pytest.mark.parametrize("kind", TERMS)
def test_every_game_earns_less_than_honest_answers(kind: str, gate: dict[str, Any]) -> None:
    reward = Reward(RewardSection.model_validate({"terms": [{"kind": kind}], **gate}), CODEC)
    fair = earned(honest, reward)
    counts = np.array([min(len(question.truths), 2) for question in QUESTIONS])
    assert set(counts) == {0, 1, 2}
    for policy in GAMES:
        values = earned(policy, reward)
        assert values.mean() < fair.mean() - 0.1, policy.__name__
    # Not only in the mean, but wherever the game is one: where nothing matches, there is nothing to give twice.
    for policy, played in (
        (everything, (0, 1, 2)),
        (one_huge, (0, 1, 2)),
        (one_more, (0, 1, 2)),
        (duplicates, (1, 2)),
        (near_duplicates, (1, 2)),
        (nothing, (1, 2)),
        (always_one, (0, 2)),
    ):
        values = earned(policy, reward)
        for count in played:
            assert values[counts == count].mean() < fair[counts == count].mean() - 0.05, (policy.__name__, count)


def test_what_is_left_out_or_added_costs_what_it_is_worth() -> None:
    size, truth = (100, 100), [Box(0, 0, 20, 20), Box(40, 40, 60, 60)]
    reward = Reward(RewardSection.model_validate({"terms": [{"kind": "iou"}]}), CODEC)

    def worth(boxes: Sequence[Box], truths: Sequence[Box] = truth, expect: str = "all") -> float:
        text = CODEC.target("it", boxes, size=size)
        return reward([None], [text], truth=[[box.corners for box in truths]], size=[size], expect=[expect])[0]  # type: ignore[list-item]

    far = Box(80, 80, 100, 100)
    assert worth(truth) == worth(truth[::-1]) == worth([], []) == 1
    assert worth(truth[:1]) == worth([truth[0], far]) == 0.5
    assert worth([*truth, far]) == worth([*truth, truth[0]]) == pytest.approx(2 / 3)
    assert worth([]) == worth([far], []) == 0
    assert worth([truth[0], far], truth[:1], "any") == 0.5
    assert worth(truth[:1], truth[:1], "any") == 1


def test_nothing_in_words_is_out_of_form() -> None:
    reward = Reward(RewardSection.model_validate({"format_gate": {"factor": 0.5}}), CODEC)
    texts = ["```json\n[]\n```", "[]", '{"bbox_2d": null}', "There is no such thing in the image.", "I cannot help."]
    grades = reward.grade(texts, truths=[()] * 5, sizes=[(9, 9)] * 5, expects=["any"] * 5)
    assert grades.totals.tolist() == [1, 1, 1, 0.5, 0]
