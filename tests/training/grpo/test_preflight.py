"""The preflight: a run that can learn passes, and each way in which one cannot is told by its own words."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from PIL import Image

from egm.boxes import Box
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.errors import EgmError
from egm.models import build_processor
from egm.training.grpo.preflight import preflight
from egm.training.grpo.prompts import PromptCollator, Prompts
from egm.training.grpo.recipe import GRPORecipe
from egm.training.rewards.reward import Reward, RewardSection
from egm.types import Sample

CODEC = get_codec("qwen3_vl")
SAMPLES = SynthRef("val").samples(0)[:4]


class Script:
    """Draws what it is told to, by the sample, the number of the draw, and the wording of the question."""

    def __init__(self, processor: Any, text: Any, *, ended: bool = True) -> None:
        self._tokenizer, self._text, self._ended = processor.tokenizer, text, ended

    def __call__(self, prompts: Prompts, group: int, **settings: Any) -> list[list[int]]:
        end = [self._tokenizer.eos_token_id] if self._ended else []
        asked = self._tokenizer.batch_decode(prompts.ids)
        texts = [self._text(s, i, q) for s, q in zip(prompts.samples, asked, strict=True) for i in range(group)]
        return [[*self._tokenizer(text)["input_ids"], *end] for text in texts]


def target(sample: Sample, box: Box | None = None) -> str:
    assert sample.box is not None
    assert sample.size is not None
    return CODEC.target(sample.phrase, box or sample.box, size=sample.size, rationale="It is there.")


def look(
    text: Any, *, samples: Any = SAMPLES, ended: bool = True, name: str = "egm-tiny", reward: Any = MappingProxyType({})
) -> None:
    processor = build_processor()
    recipe = GRPORecipe.model_validate({"model": {"name": name}, "optim": {"steps": 1}})
    preflight(
        recipe,
        samples,
        collator=PromptCollator(processor, CODEC, None),
        decoder=Script(processor, text, ended=ended),  # type: ignore[arg-type]
        reward=Reward(RewardSection.model_validate(reward), CODEC),
        stops=[processor.tokenizer.eos_token_id],
    )


def refusal(text: Any, **options: Any) -> str:
    with pytest.raises(EgmError) as caught:
        look(text, **options)
    message = str(caught.value)
    assert message.startswith("preflight: of 16 rollouts")
    assert "\n" not in message
    assert "--skip-preflight" in message
    return message


def test_answers_of_differing_worth_pass() -> None:
    look(lambda sample, draw, asked: target(sample) if draw % 2 else "</think> I cannot see it.")


def test_a_text_that_cannot_be_read_is_shown() -> None:
    assert "the answer is blue" in refusal(lambda sample, draw, asked: "So.</think> the answer is blue")


def test_answers_that_are_cut_off() -> None:
    message = refusal(lambda sample, draw, asked: "I look and look", ended=False)
    assert "16 are cut off by rollout.max_new_tokens 320" in message


BIG = [Sample(f"s{i}", Image.new("RGB", (320, 320)), "it", Box(200, 200, 300, 310), (320, 320)) for i in range(4)]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            '</think> [{"bbox_2d": [200, 200, 300, 310]}]',
            "if their numbers meant pixels (mean IoU 1.00, against 0.00 as coordinates on the scale 0-1000)",
        ),
        (
            "<ref>it</ref><box>[[625, 625, 938, 969]]</box>",  # InternVL's: no reasoning to close
            "if their numbers meant another family's tags on 0-1000 (mean IoU 1.00, against 0.00",
        ),
        (
            '</think> [{"bbox_2d": [1200, 1300, 1800, 1900]}]',
            "16 answers leave the scale of 0-1000, such as '</think> [{",
        ),
    ],
    ids=["pixels", "tags", "out of scale"],
)
def test_answers_in_another_convention(answer: str, says: str) -> None:
    assert says in refusal(lambda sample, draw, asked: answer, samples=BIG)


def test_another_wording_that_earns_more() -> None:
    def text(sample: Sample, draw: int, asked: str) -> str:
        return target(sample) if "bounding box coordinate" in asked else "</think> what?"

    assert "set data.prompt to grounding" in refusal(text)


def test_the_wording_of_the_fine_tuning(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("stage: sft\ndata: {prompt: grounding}\n")
    message = refusal(lambda sample, draw, asked: "</think> what?", name=str(tmp_path / "model"))
    assert "the fine-tuning asked in the style 'grounding'" in message


def test_a_picture_resized_to_nothing() -> None:
    huge = [Sample("s", Image.new("RGB", (6000, 4000)), "it", Box(1, 2, 3000, 4000), (6000, 4000))]
    assert "6000 x 4000 pixels is resized to" in refusal(lambda sample, draw, asked: "</think> what?", samples=huge * 4)


def test_equal_rewards_are_no_use() -> None:
    assert "every answer earns the same" in refusal(lambda sample, draw, asked: target(sample), samples=SAMPLES[:1] * 4)


def test_misses_that_earn_differently_can_be_learnt_from() -> None:
    corner = [
        Sample(f"s{i}", Image.new("RGB", (320, 320)), "it", Box(280, 280, 300, 300), (320, 320)) for i in range(4)
    ]

    def text(sample: Sample, draw: int, asked: str) -> str:
        """Miss, ever nearer, and ramble in every second draw."""
        return target(sample, Box(50 * draw, 0, 50 * draw + 30, 30)).replace("It", "so " * 7 * (draw % 2) + "it")

    near_or_far = {"terms": [{"kind": "giou_below"}]}
    look(text, samples=corner, reward=near_or_far)
    assert "the rewards are all 0, so" in refusal(text, samples=corner, reward={"terms": [{"kind": "iou"}]})
    penalised = {"terms": [{"kind": "iou"}], "repetition": {}}
    assert "the rewards are all 0 but for format and penalties, so" in refusal(text, samples=corner, reward=penalised)

    def mostly_unreadable(sample: Sample, draw: int, asked: str) -> str:
        return "</think> I cannot see it." if draw else target(sample, Box(0, 0, 30, 30))

    says = refusal(mostly_unreadable, samples=corner, reward=near_or_far)
    assert "no box overlaps the truth, so" in says
    assert "12 hold no box that can be read" in says

    def half_out_of_form(sample: Sample, draw: int, asked: str) -> str:
        return target(sample, Box(0, 0, 30, 30)).replace("```json", "```json" if draw % 2 else "")

    gated = {"terms": [{"kind": "sigmoid"}], "format_gate": {"factor": 0.5}}
    assert "every answer earns the same" in refusal(half_out_of_form, samples=corner, reward=gated)
