"""What a decoder is to training: groups of completions to prompts, by a model whose weights go on changing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch

from egm.models.decode.job import DecodedBatch
from egm.models.decode.prompt_batch import PromptBatch
from egm.models.decode.sampling import Sampler


class Decoder(ABC):
    """Writes completions with a model in this process.

    Args:
        model: The model, unwrapped.
        dtype: What to compute in: weights of another type are copied before each generation. None takes them as they
            are.
        stops: Tokens that end a completion.
        pad: The padding token.
        banned: Tokens never to be sampled.
    """

    def __init__(
        self, model: Any, *, dtype: torch.dtype | None, stops: Sequence[int], pad: int, banned: Sequence[int]
    ) -> None:
        self._source, self._dtype = model, dtype
        self._copy: Any = None
        self.device: torch.device = next(model.parameters()).device
        self._stops, self._pad = tuple(stops), pad
        self._banned = torch.tensor(list(banned), device=self.device, dtype=torch.long)

    def __call__(
        self,
        prompts: PromptBatch,
        group: int,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        until: Sequence[int] = (),
    ) -> list[list[int]]:
        """Answer each prompt `group` times, by torch's own random state.

        Args:
            prompts: The prompts.
            group: Completions a question.
            max_new_tokens: Where a completion is cut off.
            temperature: 0 takes the likeliest token each time.
            top_p: The likeliest tokens that together reach this probability.
            top_k: The k likeliest tokens; 0 keeps all.
            until: Further tokens that end a completion.

        Returns:
            Tokens of the completions, the stop token included, the groups one after the other.
        """
        which = [prompt for prompt in range(len(prompts.ids)) for _ in range(group)]
        sampler = Sampler(temperature, top_p, top_k)
        uniforms = None if sampler.greedy else torch.rand((len(which), max_new_tokens), device=self.device)
        return self.generate(prompts, which, max_new_tokens, sampler, uniforms, until=until).ids

    @abstractmethod
    def generate(
        self,
        prompts: PromptBatch,
        which: Sequence[int],
        max_new_tokens: int,
        sampler: Sampler,
        uniforms: torch.Tensor | None = None,
        *,
        until: Sequence[int] = (),
    ) -> DecodedBatch:
        """Generate completions.

        Args:
            prompts: The prompts.
            which: The question of each completion.
            max_new_tokens: Where a completion is cut off.
            sampler: How a token is sampled.
            uniforms: The random numbers of each completion, shape (completions, max_new_tokens); None if greedy. They
                belong to the completion and not to its row, so what else is in the batch changes nothing.
            until: Further tokens that end a completion.
        """

    def _policy(self) -> Any:
        """Return the model in the type to compute in, with the weights of now."""
        if self._dtype is None:
            return self._source
        parameters = list(self._source.parameters())
        if all(parameter.dtype == self._dtype for parameter in parameters):
            return self._source
        if self._copy is None:
            self._copy = deepcopy(self._source).requires_grad_(False)
            # Buffers stay, as in a model loaded in that type: the frequencies of positions, rounded, would be others.
            for parameter in self._copy.parameters():
                parameter.data = parameter.data.to(self._dtype)
        # In place, since recorded graphs read the weights where they were.
        torch._foreach_copy_(list(self._copy.parameters()), [parameter.detach() for parameter in parameters])
        return self._copy
