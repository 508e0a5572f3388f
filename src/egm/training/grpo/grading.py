"""Completions as tokens, decoded as evaluation decodes them, and rewarded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from egm.training.grpo.questions import Prompts
from egm.training.rewards.reward import Grades, Reward


def grade(
    reward: Reward,
    prompts: Prompts,
    rows: Sequence[int],
    completion_ids: Sequence[Sequence[int]],
    tokenizer: Any,
    stops: Sequence[int],
) -> tuple[list[str], Grades]:
    """Decode completions as evaluation does, and reward them.

    Args:
        reward: What completions are worth.
        prompts: What was asked.
        rows: Which question each completion answers.
        completion_ids: Their tokens.
        tokenizer: What they are tokens of.
        stops: Tokens that end a completion.

    Returns:
        The texts, and what they are worth.
    """
    ended = [bool(ids) and ids[-1] in stops for ids in completion_ids]
    without_stop = [list(ids[:-1]) if end else list(ids) for ids, end in zip(completion_ids, ended, strict=True)]
    texts = tokenizer.batch_decode(without_stop, skip_special_tokens=False)
    samples = [prompts.samples[row] for row in rows]
    grades = reward.grade(
        texts,
        truths=[sample.box for sample in samples if sample.box is not None],
        sizes=[prompts.sizes[prompts.pictures[row]] for row in rows],
        amodal=[sample.amodal for sample in samples],
        tokens=[len(ids) for ids in completion_ids],
        finish_reasons=["stop" if end else "length" for end in ended],
    )
    return texts, grades
