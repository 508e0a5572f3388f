"""Groups of completions, each drawn whole or branching at a text from what was drawn once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from egm.models.decode.base import Decoder
from egm.training.grpo.prompts import Prompts
from egm.training.grpo.recipe import RolloutSection


class GroupSampler:
    """Samples a group of completions for each prompt.

    Args:
        decoder: Decodes in this process.
        tokenizer: The model's.
        stops: Tokens that end a completion; groups branch before them, if at all.
        rollout: How completions are drawn.
    """

    def __init__(self, decoder: Decoder, tokenizer: Any, stops: Sequence[int], rollout: RolloutSection) -> None:
        self._tokenizer, self._stops, self._rollout = tokenizer, frozenset(stops), rollout
        self._decode = partial(decoder, temperature=rollout.temperature, top_p=rollout.top_p, top_k=rollout.top_k)
        text = rollout.branch
        # Tokens that hold the whole text end what is shared at once; a text of several tokens is found afterwards.
        vocabulary = () if text is None else range(len(tokenizer))
        self._until = [n for n in vocabulary if n not in self._stops and text in tokenizer.decode([n])]

    def __call__(self, prompts: Prompts) -> tuple[list[list[int]], list[int]]:
        """Sample the groups.

        Returns:
            The tokens of the completions, one group after the other, and how many tokens each group shares.
        """
        group, limit = self._rollout.group, self._rollout.max_new_tokens
        prefixes: list[list[int]] = [[] for _ in prompts.ids]
        if self._rollout.branch is not None:
            once = self._decode(prompts, 1, max_new_tokens=limit - 1, until=self._until)
            prefixes = [ids[: self._branch_point(self._rollout.branch, ids)] for ids in once]
            # The prefix becomes a part of the prompt, so that it is read once for the whole group.
            prompts = replace(prompts, ids=[ids + more for ids, more in zip(prompts.ids, prefixes, strict=True)])
        shared = [len(ids) for ids in prefixes]
        # All decode as far as the group with the shortest prefix may; what the others have too much is cut off.
        tails = self._decode(prompts, group, max_new_tokens=limit - min(shared))
        return [(prefixes[row // group] + ids)[:limit] for row, ids in enumerate(tails)], shared

    def _branch_point(self, text: str, ids: Sequence[int]) -> int:
        """Count the tokens up to the one that first completes a text; 0 if none does."""
        before_stop = [token for token in ids if token not in self._stops]
        counts = range(1, len(before_stop) + 1)
        # Once the text is there it stays, so the first count that has it is found by bisection.
        place = bisect_left(counts, True, key=lambda count: text in self._tokenizer.decode(before_stop[:count]))
        return counts[place] if place < len(counts) else 0
