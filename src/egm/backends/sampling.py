"""Drawing tokens so that a row's text depends on its own seed and not on what else is in the batch; and budgets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from egm.backends.base import GenerationSettings, Request


def seed_of(settings: GenerationSettings, request: Request) -> int:
    """Mix the settings' seed, a request's draw and its vote into one seed of 63 bits; vote 0 has the draw's own."""
    place = f"{settings.seed}/{request.draw}" + (f"/{request.vote}" if request.vote else "")
    digest = hashlib.sha256(place.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def alike(requests: Sequence[Request]) -> list[list[Request]]:
    """Group neighbours that ask the same about the same picture, such as the votes on one question."""
    groups: list[list[Request]] = []
    for request in requests:
        if groups and request.asks_as(groups[-1][0]):
            groups[-1].append(request)
        else:
            groups.append([request])
    return groups


class Budget:
    """What is written in the model's place where its reasoning has lasted long enough.

    Args:
        settings: How many tokens that is.
        request: What then follows, by its `cut`.
        decode: Tokens to text.
        encode: Text to tokens.

    Attributes:
        begin: How many tokens stand before what was forced; 0 where nothing was.
        end: How many tokens there are up to its end; 0 where nothing was.
    """

    def __init__(
        self,
        settings: GenerationSettings,
        request: Request,
        decode: Callable[[Sequence[int]], str],
        encode: Callable[[str], list[int]],
    ) -> None:
        self._budget, self._cut, self._decode, self._encode = settings.thinking_budget, request.cut, decode, encode
        self._forced: list[int] = []
        self.begin = self.end = 0

    def token(self, count: int, written: Callable[[], Sequence[int]]) -> int | None:
        """Return the token to write next, or None where the model chooses.

        Args:
            count: How many tokens are written.
            written: Returns them.
        """
        if self._budget is None or self._cut is None or count < self._budget:
            return None
        if count == self._budget and (text := self._cut(self._decode(written()))):
            self._forced = self._encode(text)
            self.begin, self.end = count, count + len(self._forced)
        return self._forced[count - self._budget] if count < self.end else None


def mean_logprobs(
    ids: Sequence[int], logprobs: Sequence[float], close: Sequence[int], budget: Budget
) -> tuple[float | None, float | None]:
    """Average log-probabilities as `Completion.logprob` and `Completion.answer_logprob` say.

    Args:
        ids: The tokens generated.
        logprobs: Their log-probabilities.
        close: The tokens of `</think>`.
        budget: What was forced, and so chosen by nobody.
    """
    width = len(close)
    starts = (at for at in range(len(ids) - width, -1, -1) if list(ids[at : at + width]) == list(close))
    answer = max(next((at + width for at in starts), 0), budget.end)
    own = [*logprobs[: budget.begin], *logprobs[budget.end :]]
    return _mean(own), _mean(logprobs[answer:])


def _mean(values: Sequence[float]) -> float | None:
    return float(sum(values) / len(values)) if len(values) else None


class GumbelSampler:
    """A logits processor after which taking the largest score is a draw from the model's distribution.

    Adding Gumbel noise to log-probabilities and taking the largest samples from them exactly (Gumbel, 1954). Each row
    draws its noise from a generator of its own, and the global random state is left alone.

    Args:
        settings: Temperature, top-p and top-k, and the seed.
        requests: The request of each row.
        device: Where the scores are.
    """

    def __init__(self, settings: GenerationSettings, requests: Sequence[Request], device: Any) -> None:
        import torch
        from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        self._warpers: list[Any] = [TemperatureLogitsWarper(settings.temperature)]
        if settings.top_k:
            self._warpers.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1.0:
            self._warpers.append(TopPLogitsWarper(settings.top_p))
        self._generators = [torch.Generator(device).manual_seed(seed_of(settings, own)) for own in requests]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Warp the scores, shape (rows, vocabulary), and add the noise."""
        import torch

        scores = scores.float()
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        rows = zip(scores, self._generators, strict=True)
        noise = torch.stack([torch.empty_like(row).exponential_(generator=own) for row, own in rows])
        return scores - noise.clamp_min(torch.finfo(noise.dtype).tiny).log()


class Scribe:
    """Two logits processors, first and last in the row: what the model thought of its tokens, and tokens in its place.

    Args:
        budgets: One a row.
    """

    def __init__(self, budgets: Sequence[Budget]) -> None:
        self.budgets = budgets
        self._length = 0  # of the prompt
        self._scores: Any = None
        self._chosen: list[Any] = []  # for each token but the last, log-probabilities of shape (rows,)

    def listen(self, input_ids: Any, scores: Any) -> Any:
        """Note the scores as the model gave them, and what became of those before; scores pass as they are."""
        if self._scores is None:
            self._length = input_ids.shape[1]
        else:
            self._chosen.append(self._of(input_ids[:, -1]))
        self._scores = scores.float().clone()
        return scores

    def force(self, input_ids: Any, scores: Any) -> Any:
        """Leave a row whose budget has run out no choice."""
        count = input_ids.shape[1] - self._length
        forced = [own.token(count, input_ids[row, self._length :].tolist) for row, own in enumerate(self.budgets)]
        if all(token is None for token in forced):
            return scores
        scores = scores.clone()
        for row, token in enumerate(forced):
            if token is not None:
                scores[row] = -float("inf")
                scores[row, token] = 0.0
        return scores

    def logprobs(self, output: Any) -> list[list[float]]:
        """Return the log-probability of each token generated, row by row."""
        import torch

        count = output.shape[1] - self._length
        chosen = [*self._chosen[: count - 1], self._of(output[:, -1])] if len(self._chosen) < count else self._chosen
        rows: list[list[float]] = torch.stack(chosen[:count], dim=1).tolist()
        return rows

    def _of(self, tokens: Any) -> Any:
        scores = self._scores.gather(1, tokens.to(self._scores.device)[:, None])[:, 0]
        return scores - self._scores.logsumexp(dim=1)


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
