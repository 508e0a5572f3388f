"""Sampling so that a row's text depends on its own seed and not on what else is in the batch; and budget forcing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from egm.backends.base import GenerationSettings, Request
from egm.types import mean_if_any


def seed_of(settings: GenerationSettings, request: Request) -> int:
    """Mix the settings' seed with a request's seed index and, but for vote 0, its vote into one seed of 63 bits."""
    place = f"{settings.seed}/{request.seed_index}" + (f"/{request.vote}" if request.vote else "")
    digest = hashlib.sha256(place.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def group_by_prompt(requests: Sequence[Request]) -> list[list[Request]]:
    """Group neighbours that ask the same about the same picture, such as the votes on one question."""
    groups: list[list[Request]] = []
    for request in requests:
        if groups and request.same_prompt(groups[-1][0]):
            groups[-1].append(request)
        else:
            groups.append([request])
    return groups


class ThinkingBudget:
    """Budget forcing: what is written in the model's place where its reasoning has lasted long enough.

    Args:
        settings: How many tokens that is.
        request: What then follows, by its `cut`.
        decode: Tokens to text.
        encode: Text to tokens.

    Attributes:
        forced: How many tokens stand before what was forced, and how many up to its end; zeros where nothing was.
    """

    def __init__(
        self,
        settings: GenerationSettings,
        request: Request,
        decode: Callable[[Sequence[int]], str],
        encode: Callable[[str], list[int]],
    ) -> None:
        self._budget, self._cut, self._decode, self._encode = settings.thinking_budget, request.cut, decode, encode
        self._banned = [] if request.banned_token is None else [request.banned_token]
        self._think_end = encode("</think>") if self.limited else []
        self._text: list[int] = []
        self.forced = (0, 0)

    @property
    def tokens(self) -> int:
        """The budget; 0 where there is none."""
        return (self._budget or 0) if self.limited else 0

    @property
    def limited(self) -> bool:
        """Whether there is a budget at all."""
        return self._budget is not None and self._cut is not None

    def forced_token(self, count: int, written: Callable[[], Sequence[int]]) -> int | None:
        """Return the token to write next, or None where the model chooses.

        Args:
            count: How many tokens are written.
            written: Returns them.
        """
        if self._budget is None or self._cut is None or count < self._budget:
            return None
        if count == self._budget and (text := self._cut(self._decode(written()))):
            self._text = self._encode(text)
            self.forced = (count, count + len(self._text))
        return self._text[count - self._budget] if count < self.forced[1] else None

    @property
    def acts(self) -> bool:
        """Whether anything may be forced or banned."""
        return self.limited or bool(self._banned)

    def banned_tokens(self, count: int) -> list[int]:
        """Return tokens that the model may not choose: the request's, and one once its reasoning was closed.

        That is what closes it: a model that was taught to think first would go on with that, close it, and answer all
        over again.
        """
        closes = self._think_end if 0 < self.forced[1] <= count and len(self._think_end) == 1 else []
        return [*self._banned, *closes]


def logprob_fields(
    ids: Sequence[int],
    logprobs: Sequence[float],
    think_end: Sequence[int],
    forced: tuple[int, int],
    text_of: Callable[[int], str],
) -> dict[str, Any]:
    """Say how likely tokens were, as fields of a `Completion`.

    Args:
        ids: The tokens generated.
        logprobs: Their log-probabilities.
        think_end: The tokens of `</think>`.
        forced: From where to where tokens were forced, and so chosen by nobody.
        text_of: A token as text.
    """
    width = len(think_end)
    starts = (at for at in range(len(ids) - width, -1, -1) if list(ids[at : at + width]) == list(think_end))
    answer = max(next((at + width for at in starts), 0), forced[1])
    chosen = [*logprobs[: forced[0]], *logprobs[forced[1] :]]
    return {
        "logprob": mean_if_any(chosen),
        "answer_logprob": mean_if_any(logprobs[answer:]),
        "answer_tokens": tuple(zip(map(text_of, ids[answer:]), logprobs[answer:], strict=False)),
    }


def row_uniforms(settings: GenerationSettings, requests: Sequence[Request], count: int) -> Any:
    """Return each request's own random numbers in [0, 1), shape (requests, count); None if greedy."""
    from egm.models.decode.sampling import uniforms

    return None if settings.greedy else uniforms([seed_of(settings, own) for own in requests], count)


def sampler_of(settings: GenerationSettings) -> Any:
    """Return what draws tokens with these settings."""
    from egm.models.decode.sampling import Sampler

    return Sampler(settings.temperature, settings.top_p, settings.top_k)


def row_draws(settings: GenerationSettings, requests: Sequence[Request], count: int, device: Any) -> Any:
    """Return the logits processor that draws each request's tokens by its own random numbers; see `RowDraws`."""
    from egm.models.decode.sampling import RowDraws

    return RowDraws(sampler_of(settings), row_uniforms(settings, requests, count).to(device))


class LogitsProcessors:
    """Logits processors of a batch: they record what the model thought of its tokens, ban some, and force others.

    Args:
        budgets: One a row.
    """

    def __init__(self, budgets: Sequence[ThinkingBudget]) -> None:
        self.budgets = budgets
        self._limited = [(row, budget) for row, budget in enumerate(budgets) if budget.acts]
        self._length = 0  # of the prompt
        self._scores: Any = None
        self._chosen: list[Any] = []  # for each token but the last, log-probabilities of shape (rows,)

    def record(self, input_ids: Any, scores: Any) -> Any:
        """Record the scores as the model gave them, and what was chosen by those before; scores pass as they are."""
        if self._scores is None:
            self._length = input_ids.shape[1]
        else:
            self._chosen.append(self._of(input_ids[:, -1]))
        self._scores = scores.float().clone()
        return scores

    def ban(self, input_ids: Any, scores: Any) -> Any:
        """Ban the tokens that a row may not choose; before anything is drawn."""
        count = input_ids.shape[1] - self._length
        banned = [(row, token) for row, own in self._limited for token in own.banned_tokens(count)]
        if banned:
            scores = scores.clone()
            for row, token in banned:
                scores[row, token] = -float("inf")
        return scores

    def force(self, input_ids: Any, scores: Any) -> Any:
        """Force the token of a row whose budget has run out."""
        count = input_ids.shape[1] - self._length
        forced = [
            own.forced_token(count, partial(_written, input_ids, row, self._length)) for row, own in self._limited
        ]
        if all(token is None for token in forced):
            return scores
        scores = scores.clone()
        for (row, _), token in zip(self._limited, forced, strict=True):
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


def _written(input_ids: Any, row: int, start: int) -> list[int]:
    ids: list[int] = input_ids[row, start:].tolist()
    return ids


class TokenTimer:
    """A stopping criterion that never stops, and notes when each token was there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - what generate calls with
        """Note when the newest token of each row was there."""
        import time

        import torch

        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class RepetitionStop:
    """A stopping criterion for rows that repeat themselves, as `ends_repeated` says.

    A row with a thinking budget is left alone until that has run out, which ends reasoning in its own way.

    Args:
        budgets: One a row.
        length: Length of the prompts.
        device: Where the tokens are.
    """

    def __init__(self, budgets: Sequence[ThinkingBudget], length: int, device: Any) -> None:
        import torch

        from egm.models.decode.sampling import RepetitionCounter

        self._counter, self._length = RepetitionCounter(len(budgets), device), length
        self._after = torch.tensor([own.tokens for own in budgets], device=device)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - what generate calls with
        """Tell which rows repeat themselves with their newest token."""
        from torch.nn.functional import pad

        written = input_ids[:, self._length :]
        longest = len(self._counter.blocks)
        before = written[:, -1 - longest : -1].flip(1)
        before = pad(before, (0, longest - before.shape[1]), value=-1)  # there is nothing before the first token
        return self._counter(before, written[:, -1]) & (written.shape[1] > self._after)
