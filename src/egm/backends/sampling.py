"""Drawing tokens so that a row's text depends on its own seed and not on what else is in the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from egm.backends.base import GenerationSettings


def seed_of(settings: GenerationSettings, draw: int) -> int:
    """Mix the settings' seed and a request's draw into one seed of 63 bits."""
    digest = hashlib.sha256(f"{settings.seed}/{draw}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class GumbelSampler:
    """A logits processor after which taking the largest score is a draw from the model's distribution.

    Adding Gumbel noise to log-probabilities and taking the largest samples from them exactly (Gumbel, 1954). Each row
    draws its noise from a generator of its own, and the global random state is left alone.

    Args:
        settings: Temperature, top-p and top-k, and the seed.
        draws: The draw of each row.
        device: Where the scores are.
    """

    def __init__(self, settings: GenerationSettings, draws: Sequence[int], device: Any) -> None:
        import torch
        from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        self._warpers: list[Any] = [TemperatureLogitsWarper(settings.temperature)]
        if settings.top_k:
            self._warpers.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1.0:
            self._warpers.append(TopPLogitsWarper(settings.top_p))
        self._generators = [torch.Generator(device).manual_seed(seed_of(settings, draw)) for draw in draws]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Warp the scores, shape (rows, vocabulary), and add the noise."""
        import torch

        scores = scores.float()
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        rows = zip(scores, self._generators, strict=True)
        noise = torch.stack([torch.empty_like(row).exponential_(generator=own) for row, own in rows])
        return scores - noise.clamp_min(torch.finfo(noise.dtype).tiny).log()


class Clock:
    """A stopping criterion that never stops, and notes when each token was there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - what generate calls with
        """Note the time."""
        import time

        import torch

        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
