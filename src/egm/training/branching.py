"""Groups of completions, each drawn whole or parting at a text from what was drawn once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from egm.models.decode import Decoder
from egm.training.grpo_recipe import RolloutSection
from egm.training.prompts import Prompts


class GroupDrawer:
    """Draws a group of completions for each question.

    Args:
        decoder: Decodes in this process.
        tokenizer: The model's.
        rollout: How completions are drawn.
    """

    def __init__(self, decoder: Decoder, tokenizer: Any, rollout: RolloutSection) -> None:
        self._tokenizer, self._rollout = tokenizer, rollout
        self._draw = partial(decoder, temperature=rollout.temperature, top_p=rollout.top_p, top_k=rollout.top_k)
        self._pieces: dict[int, str] = {}
        text = rollout.branch
        self._telling = () if text is None else tuple(n for n in range(len(tokenizer)) if text in self._piece(n))

    def __call__(self, prompts: Prompts) -> tuple[list[list[int]], list[int]]:
        """Draw the groups.

        Returns:
            The tokens of the completions, one group after the other, and how many tokens each group shares.
        """
        group, most = self._rollout.group, self._rollout.max_new_tokens
        begun: list[list[int]] = [[] for _ in prompts.ids]
        if self._rollout.branch is not None:
            whole = self._draw(prompts, 1, max_new_tokens=most - 1, until=self._telling)
            begun = [ids[: self._parting(self._rollout.branch, ids)] for ids in whole]
            prompts = replace(prompts, ids=[ids + more for ids, more in zip(prompts.ids, begun, strict=True)])
        shared = [len(ids) for ids in begun]
        ends = self._draw(prompts, group, max_new_tokens=most - min(shared))
        return [(begun[row // group] + ids)[:most] for row, ids in enumerate(ends)], shared

    def _parting(self, text: str, ids: Sequence[int]) -> int:
        """Count the tokens up to where a text is complete for the first time; 0 if it never is."""
        written = ""
        for count, token in enumerate(ids, 1):
            written += self._piece(token)
            if text in written:
                return count
        return 0

    def _piece(self, token: int) -> str:
        if token not in self._pieces:
            self._pieces[token] = self._tokenizer.decode([token])
        return self._pieces[token]
