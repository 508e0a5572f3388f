"""Thinking budgets on servers: a token limit cuts the reasoning off, and an assistant prefill begins the answer.

That takes two requests. What is begun in the model's place is read and not generated there, so it counts among the
prompt's tokens. vLLM and SGLang go on with a begun answer (`continue_final_message`); the chat template has to show the
answer as it was begun, which those of Qwen's Thinking models do.

The model is not to close its reasoning once more, as one that was taught to think first would: a server that says which
token does that, as vLLM and SGLang do, is told to ban it (`logit_bias`). Any other cannot be told. There what follows
the second close is the model's answer, after more reasoning than the budget allows.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from dataclasses import replace

from egm.backends.base import GenerationSettings, Request, behind
from egm.backends.openai.messages import RemoteRequest
from egm.errors import BackendError
from egm.types import Completion, cost_of_both

_NEEDS = "a thinking budget needs a server that goes on with a begun answer (continue_final_message: vLLM, SGLang)"


async def answer_within_budget(
    request: Request,
    settings: GenerationSettings,
    ask: Callable[[Request, GenerationSettings], Awaitable[Completion]],
    think_end: Callable[[], Awaitable[int | None]],
) -> Completion:
    """Ask within a thinking budget.

    Args:
        request: The question, with its `cut`.
        settings: With a thinking budget.
        ask: Sends one request; a budget in its settings is left aside.
        think_end: Tells the token that closes reasoning, if it can be known.

    Returns:
        Both replies as one.

    Raises:
        BackendError: If a request fails.

    Warns:
        UserWarning: If the second reply closes reasoning all the same.
    """
    budget = settings.thinking_budget
    if budget is None or request.cut is None:
        return await ask(request, settings)
    first = await ask(request, replace(settings, max_new_tokens=budget, thinking_budget=None))
    if first.finish_reason != "length":
        return first
    thought = first.text.rstrip("\n")  # as templates do
    prefill = thought + (begun := request.cut(thought))
    if request.on_text is not None:
        request.on_text(begun)
    files = request.files if isinstance(request, RemoteRequest) else ()
    rest = RemoteRequest(
        request.messages,
        request.images,
        seed_index=request.seed_index,
        vote=request.vote,
        on_text=request.on_text,
        on_again=request.on_again,
        ends=request.ends,
        files=files,
        prefill=prefill,
        token_logprobs=request.token_logprobs,
        banned_token=await think_end(),
    )
    left = replace(settings, max_new_tokens=settings.max_new_tokens - budget, thinking_budget=None)
    try:
        second = await _continue(rest, left, ask)
    except BackendError as error:
        raise BackendError(f"{error}; {_NEEDS}") from error
    if "</think>" in second.text:  # two causes, and the text is the same
        warnings.warn(
            "an answer closed its reasoning a second time, and is read after that, beyond the thinking budget: the "
            f"model thought on, or the server began a new answer, as {_NEEDS}",
            stacklevel=2,
        )
    whole = behind(prefill, second)
    told = tuple((min(end, len(thought)), value) for end, value in first.token_logprobs) + whole.token_logprobs
    return replace(whole, token_logprobs=told, logprob=_weighted(first, second), **cost_of_both(first, second))


async def _continue(
    rest: RemoteRequest,
    settings: GenerationSettings,
    ask: Callable[[Request, GenerationSettings], Awaitable[Completion]],
) -> Completion:
    try:
        return await ask(rest, settings)
    except BackendError as error:
        # vLLM refuses it beside speculative decoding, for one.
        if rest.banned_token is None or "logit_bias" not in str(error):
            raise
    return await ask(replace(rest, banned_token=None), settings)


def _weighted(first: Completion, second: Completion) -> float | None:
    """Mean log-probability of all tokens of both, where both tell theirs."""
    ours, theirs = first.completion_tokens, second.completion_tokens
    if first.logprob is None or second.logprob is None or ours is None or theirs is None:
        return None
    return (first.logprob * ours + second.logprob * theirs) / (ours + theirs) if ours + theirs else None
