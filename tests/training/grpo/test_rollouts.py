"""Rollouts on disk and the page of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from egm.boxes import Box
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.models import build_processor
from egm.training.grpo.questions import PromptCollator
from egm.training.grpo.rollouts import RolloutWriter, read_rollouts, write_page
from egm.training.rewards.reward import IoU, Reward, RewardSection

CODEC = get_codec("qwen3_vl")


def test_boxes_are_kept_and_drawn(tmp_path: Path) -> None:
    sample = SynthRef("val").samples(0)[0]
    assert sample.box is not None
    assert sample.size is not None
    left, top, right, bottom = sample.box
    near = Box(left, top, right, top + 0.75 * (bottom - top))
    texts = [CODEC.target("it", box, size=sample.size, rationale="There.") for box in (near, Box(0, 0, 3, 3))]
    prompts = PromptCollator(build_processor(), CODEC, None)([sample])
    reward = Reward(RewardSection(terms=[IoU()]), CODEC)
    grades = reward.grade(texts, truths=[sample.box] * 2, sizes=[sample.size] * 2)
    RolloutWriter(tmp_path, keep=1, process=0).write(3, prompts, texts, grades, [0.7, -0.7])
    hit, miss = read_rollouts(tmp_path)
    assert hit["text"] == texts[0]
    assert hit["box"] == pytest.approx(list(near), abs=1)  # whole numbers of thousandths
    assert hit["iou"] == pytest.approx(0.75, abs=0.05)
    assert (hit["reward"], hit["parts"], hit["advantage"]) == (hit["iou"], {"iou": hit["iou"]}, 0.7)
    assert (miss["iou"], miss["advantage"], miss["failure"]) == (0.0, -0.7, None)
    page = write_page(tmp_path, tmp_path / "page.html").read_text()
    drawn = re.findall(r'<rect class="(\w+)" x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"/>', page)
    assert [kind for kind, *_ in drawn] == ["hit", "miss", "truth"]
    for (_, *numbers), (x1, y1, x2, y2) in zip(drawn, (hit["box"], miss["box"], hit["truth"]), strict=True):
        assert list(map(float, numbers)) == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=0.051)
