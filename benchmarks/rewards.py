"""How fast completions are rewarded, on one core.

Run with `uv run python benchmarks/rewards.py`. The bar is 20,000 completions a second.
"""

from __future__ import annotations

import sys
import time

from egm.boxes import Box
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.training.rewards.reward import Reward, RewardSection

BAR = 20_000
SECTIONS = {
    "mix": {},
    "mix, giou_below and all modifiers": {
        "terms": [{"kind": "mix"}, {"kind": "giou_below", "weight": 0.5}],
        "format_gate": {"reasoning": True},
        "overlong": {"limit": 320},
        "repetition": {},
    },
}


def main(scenes: int = 100, group: int = 8, repeats: int = 5) -> int:
    """Print completions a second; return 1 if one is below the bar."""
    codec = get_codec("qwen3_vl")
    world = SynthRef("train")
    samples = [(sample, shift) for i in range(scenes) for sample in world.samples(i) for shift in range(group)]
    texts, truths, sizes = [], [], []
    for sample, shift in samples:  # no two texts of a group are the same
        assert sample.box is not None
        assert sample.size is not None
        x1, y1, x2, y2 = sample.box
        answered = Box(x1, y1, x2 + shift, y2 + shift)
        texts.append(codec.target(sample.phrase, answered, size=sample.size, rationale=sample.rationale))
        truths.append(tuple(sample.box))
        sizes.append(sample.size)
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    ids = [range(200)] * len(texts)
    slowest = float("inf")
    for name, section in SECTIONS.items():
        reward = Reward(RewardSection.model_validate(section), codec)
        times = []
        for _ in range(repeats):
            start = time.process_time()
            reward([None] * len(texts), completions, ids, truth=truths, size=sizes)
            times.append(time.process_time() - start)
        rate = len(texts) / min(times)
        slowest = min(slowest, rate)
        print(f"{name}: {rate:,.0f} completions/s (texts of {sum(map(len, texts)) / len(texts):.0f} characters)")
    return int(slowest < BAR)


if __name__ == "__main__":
    sys.exit(main())
