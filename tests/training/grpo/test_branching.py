"""Groups that part at a text from what was drawn once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from egm.models import build_processor
from egm.models.decode.prompt_batch import PromptBatch
from egm.training.grpo.branching import GroupSampler
from egm.training.grpo.prompts import Prompts
from egm.training.grpo.recipe import RolloutSection
from egm.training.grpo.rollouts import read_rollouts
from egm.training.grpo.run import run_grpo

from .test_run import Digits, toy


def test_where_the_text_to_branch_at_never_comes_all_of_a_completion_is_drawn(tmp_path: Path) -> None:
    recipe = toy(rollout={"branch": "no such text", "temperature": 4.0}, optim={"steps": 1})
    run_grpo(recipe, tmp_path / "run", check=False, reward=Digits())
    texts = [rollout["text"] for rollout in read_rollouts(tmp_path / "run" / "rollouts")]
    assert len({text[:3] for text in texts}) > 1
    log = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert (log["branch/parted"], log["branch/shared_tokens"]) == (0, 0)


@pytest.mark.parametrize(
    ("text", "ends"), [("(", "1 ("), ("1 (", "1 ("), ("(3", "1 (2; 1 (3"), ("|", ""), ("é", "1 é")]
)
def test_groups_part_where_the_text_is_complete_and_never_after_the_end(text: str, ends: str) -> None:
    tokenizer = build_processor().tokenizer
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    told = tokenizer("1 é; 1 (2" if text == "é" else "1 (2; 1 (3").input_ids
    asked: list[dict[str, Any]] = []

    def decoder(prompts: PromptBatch, group: int, **options: Any) -> list[list[int]]:
        asked.append(options)
        return [[*told, stop] if len(asked) == 1 else [7, stop] for _ in range(group * len(prompts.ids))]

    prompts = Prompts([[5]], [0], torch.zeros(0), [], samples=[], sizes=[])
    draw = GroupSampler(decoder, tokenizer, [stop], RolloutSection(group=2, branch=text))  # type: ignore[arg-type]
    completions, shared = draw(prompts)
    assert tokenizer.decode(completions[0][: shared[0]]) == ends
    assert [ids[shared[0] :] for ids in completions] == [[7, stop]] * 2
    assert stop not in asked[0]["until"]
