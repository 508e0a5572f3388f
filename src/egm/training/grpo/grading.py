"""Completions as tokens, decoded as evaluation decodes them, and rewarded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from egm.backends.tokens import strip_stop
from egm.failures import Answered, usual_cause
from egm.training.grpo.prompts import Prompts
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
    stripped = [strip_stop(ids, stops) for ids in completion_ids]
    texts = tokenizer.batch_decode([ids for ids, _ in stripped], skip_special_tokens=False)
    samples = [prompts.samples[row] for row in rows]
    grades = reward.grade(
        texts,
        truths=[sample.box if sample.box is not None else sample.boxes or () for sample in samples],
        expects=[sample.expect for sample in samples],
        sizes=[prompts.sizes[prompts.pictures[row]] for row in rows],
        amodal=[sample.amodal for sample in samples],
        tokens=[len(ids) for ids in completion_ids],
        finish_reasons=[finish_reason for _, finish_reason in stripped],
        phrases=[sample.phrase for sample in samples],
    )
    return texts, grades


class FailureNotes:
    """Says once for each kind of failure that more than half of a step's rollouts fail in that way.

    Attributes:
        lines: What is to be said, for the log to take.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._said: set[str] = set()

    def look(self, step: int, names: Sequence[str], texts: Sequence[str], grades: Grades) -> None:
        """Look at the rollouts of a step.

        Args:
            step: Its number.
            names: The id of the sample that each rollout answers.
            texts: The rollouts.
            grades: What they are worth.
        """
        answers = [
            Answered(name, text, None if score.failure is None else str(score.failure))
            for name, text, score in zip(names, texts, grades.scores, strict=True)
        ]
        cause = usual_cause(answers, "rollouts")
        if cause is not None and cause[0] not in self._said:
            self._said.add(cause[0])
            self.lines.append(f"at step {step}, {cause[1]}")
