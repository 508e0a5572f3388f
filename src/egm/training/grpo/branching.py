"""Groups of completions, each drawn whole or parting at a text from what was drawn once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from egm.models.decode.decoder import BatchDecoder
from egm.training.grpo.questions import Prompts
from egm.training.grpo.recipe import RolloutSection


class GroupDrawer:
    """Draws a group of completions for each question.

    Args:
        decoder: Decodes in this process.
        tokenizer: The model's.
        stops: Tokens that end a completion; groups part before them, if at all.
        rollout: How completions are drawn.
    """

    def __init__(self, decoder: BatchDecoder, tokenizer: Any, stops: Sequence[int], rollout: RolloutSection) -> None:
        self._tokenizer, self._stops, self._rollout = tokenizer, frozenset(stops), rollout
        self._draw = partial(decoder, temperature=rollout.temperature, top_p=rollout.top_p, top_k=rollout.top_k)
        text = rollout.branch
        # Tokens that hold the whole text end what is shared at once; a text of several tokens is found afterwards.
        vocabulary = () if text is None else range(len(tokenizer))
        self._until = [n for n in vocabulary if n not in self._stops and text in tokenizer.decode([n])]

    def __call__(self, prompts: Prompts) -> tuple[list[list[int]], list[int]]:
        """Draw the groups.

        Returns:
            The tokens of the completions, one group after the other, and how many tokens each group shares.
        """
        group, most = self._rollout.group, self._rollout.max_new_tokens
        begun: list[list[int]] = [[] for _ in prompts.ids]
        if self._rollout.branch is not None:
            first = self._draw(prompts, 1, max_new_tokens=most - 1, until=self._until)
            begun = [ids[: self._parting(self._rollout.branch, ids)] for ids in first]
            prompts = replace(prompts, ids=[ids + more for ids, more in zip(prompts.ids, begun, strict=True)])
        shared = [len(ids) for ids in begun]
        ends = self._draw(prompts, group, max_new_tokens=most - min(shared))
        return [(begun[row // group] + ids)[:most] for row, ids in enumerate(ends)], shared

    def _parting(self, text: str, ids: Sequence[int]) -> int:
        """Count the tokens up to the one that first completes a text; 0 if none does."""
        own = [token for token in ids if token not in self._stops]
        counts = range(1, len(own) + 1)
        place = bisect_left(counts, True, key=lambda count: text in self._tokenizer.decode(own[:count]))
        return counts[place] if place < len(counts) else 0
