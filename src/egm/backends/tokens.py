"""From generated tokens to a reply: which tokens end one, and what is left without them. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

from egm.backends.base import TokenScore
from egm.models.decode.repetition import ends_repeated


def stop_tokens(*given: int | Iterable[int] | None) -> list[int]:
    """Collect stop tokens, sorted.

    Args:
        given: What configurations and tokenizers hold under `eos_token_id`: one token, several, or none.

    Example:
        >>> stop_tokens([5, 3], 5, None)
        [3, 5]
    """
    several = ([one] if isinstance(one, int) else one for one in given if one is not None)
    return sorted({int(token) for tokens in several for token in tokens if token is not None})


def strip_stop(ids: Sequence[int], stops: Container[int]) -> tuple[list[int], str]:
    """Take the stop token off generated tokens.

    Returns:
        The tokens of the text, and the finish reason: "stop" if a stop token ended them, else "length".

    Example:
        >>> strip_stop([7, 8, 2], stops=[2]), strip_stop([7, 8], stops=[2])
        (([7, 8], 'stop'), ([7, 8], 'length'))
    """
    if ids and ids[-1] in stops:
        return list(ids[:-1]), "stop"
    return list(ids), "length"


def finished(ids: Sequence[int], stops: Container[int], *, ended: bool = False) -> tuple[list[int], str]:
    """Take the stop token off tokens of an engine that stops what repeats itself.

    Args:
        ids: What was generated.
        stops: The stop tokens.
        ended: Whether whoever asked has ended the answer (`Request.on_text`).

    Returns:
        As `strip_stop`, but "stop" too where it was ended, and "repeated" where the tokens end as `ends_repeated` says.
    """
    text, finish_reason = strip_stop(ids, stops)
    if ended:
        return text, "stop"
    return text, "repeated" if finish_reason == "length" and ends_repeated(text) else finish_reason


def end_of(row: list[int], stops: Container[int]) -> int:
    """Return how many tokens of a row are its own, where an engine wrote stop tokens after what repeats itself.

    Example:
        >>> end_of([7, 8, 2, 2, 2], stops=[2]), end_of([7, 8] * 128 + [2, 2], stops=[2])
        (3, 256)
    """
    end = next((i + 1 for i, token in enumerate(row) if token in stops), len(row))
    return end - (end > 0 and row[end - 1] in stops and ends_repeated(row[: end - 1]))


def scores_of_tokens(
    scores: Any, ids: Sequence[int], decode: Callable[[Sequence[int]], str], length: int
) -> list[TokenScore]:
    """Say how sure a model is of each token of a text that it was given.

    Args:
        scores: Its scores of each of the tokens and of what follows them, an array of shape (tokens + 1, vocabulary).
        ids: The tokens.
        decode: Tokens to text.
        length: Characters of the text.
    """
    import numpy as np

    scores = np.asarray(scores, dtype=np.float32)
    best = np.partition(scores, -2, axis=1)[:, -2:]
    lead, top = best[:, 1] - best[:, 0], best[:, 1]
    total = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
    chosen = [*(float(row[token]) for row, token in zip(scores, ids, strict=False)), float(top[-1])]
    ends = [*(len(decode(ids[: count + 1])) for count in range(len(ids))), length + 1]
    return [
        TokenScore(end, float(value - whole), float(ahead))
        for end, value, whole, ahead in zip(ends, chosen, total, lead, strict=True)
    ]
