"""Thinking budgets on servers: the reasoning is cut off by a token limit, and the server goes on with a begun answer.

That takes two requests. What is begun in the model's place is read and not generated there, so it counts among the
prompt's tokens. vLLM and SGLang go on with a begun answer (`continue_final_message`); the chat template has to show the
answer as it was begun, which those of Qwen's Thinking models do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from egm.backends.base import GenerationSettings, Request
from egm.backends.openai_messages import RemoteRequest
from egm.errors import BackendError
from egm.types import Completion

_NEEDS = "a thinking budget needs a server that goes on with a begun answer (continue_final_message: vLLM, SGLang)"


async def think_within(
    request: Request,
    settings: GenerationSettings,
    ask: Callable[[Request, GenerationSettings], Awaitable[Completion]],
) -> Completion:
    """Ask within a thinking budget.

    Args:
        request: The question, with its `cut`.
        settings: With a thinking budget.
        ask: Sends one request; a budget in its settings is left aside.

    Returns:
        Both replies as one.

    Raises:
        BackendError: If a request fails, or the server began a new answer instead of going on.
    """
    budget = settings.thinking_budget
    if budget is None or request.cut is None:
        return await ask(request, settings)
    first = await ask(request, replace(settings, max_new_tokens=budget, thinking_budget=None))
    if first.finish_reason != "length":
        return first
    thought = first.text.rstrip("\n")  # as templates do
    begun = thought + request.cut(thought)
    files = request.files if isinstance(request, RemoteRequest) else ()
    rest = RemoteRequest(
        request.messages, request.images, draw=request.draw, vote=request.vote, files=files, begun=begun
    )
    left = replace(settings, max_new_tokens=settings.max_new_tokens - budget, thinking_budget=None)
    try:
        second = await ask(rest, left)
    except BackendError as error:
        raise BackendError(f"{error}; {_NEEDS}") from error
    if "</think>" in second.text:
        raise BackendError(f"the server began a new answer instead of going on with the one begun: {_NEEDS}")
    return replace(
        second,
        text=begun + second.text,
        prompt_tokens=first.prompt_tokens + second.prompt_tokens,
        completion_tokens=first.completion_tokens + second.completion_tokens,
        reasoning_tokens=None,  # what the server counted was not told where the reasoning ends
        seconds=first.seconds + second.seconds,
        first_token_seconds=first.first_token_seconds,
        queue_seconds=first.queue_seconds,
        logprob=_weighted(first, second),
    )


def _weighted(first: Completion, second: Completion) -> float | None:
    """Mean log-probability of all tokens of both, where both tell theirs."""
    count = first.completion_tokens + second.completion_tokens
    if first.logprob is None or second.logprob is None or not count:
        return None
    return (first.logprob * first.completion_tokens + second.logprob * second.completion_tokens) / count
