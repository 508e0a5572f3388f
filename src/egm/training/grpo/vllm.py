"""Prompts as vLLM takes them, and a check that it answered those that it was sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from egm.errors import BackendError


def checked_generate(generate: Callable[..., Any], placeholder: int | None) -> Callable[..., Any]:
    """Wrap vLLM's `generate`: prompts go in its own form, and the prompt ids that come back are compared.

    vLLM's engine takes one placeholder a picture and puts as many in its place as the picture has tokens. TRL sends it
    as many at once, of which it replaces one, so that it would answer a longer prompt (TRL #6294).

    Args:
        generate: `VLLMGeneration.generate` of TRL.
        placeholder: The token of which vLLM wants one a picture; None if it takes prompts as they are.

    Returns:
        The same, which raises a BackendError if another prompt was answered than the one that was meant.
    """

    def checked(*, prompts: Sequence[Sequence[int]], **kwargs: Any) -> Any:
        output = generate(prompts=[_collapse(ids, placeholder) for ids in prompts], **kwargs)
        if [list(ids) for ids in output[0]] != [list(ids) for ids in prompts]:
            raise BackendError(
                "vLLM answered other prompts than it was sent: use rollout.engine batched or transformers"
            )
        return output

    return checked


def _collapse(ids: Sequence[int], token: int | None) -> list[int]:
    """Leave one of each run of a token."""
    before = [None, *ids]
    return [current for current, last in zip(ids, before, strict=False) if current != token or last != token]
