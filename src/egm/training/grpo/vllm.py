"""Prompts as vLLM takes them, and whether it answered those that it was sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from egm.errors import BackendError


def hold_to_prompts(generate: Callable[..., Any], placeholder: int | None) -> Callable[..., Any]:
    """Send vLLM prompts in its own form, and hold it to them.

    vLLM's engine takes one placeholder a picture and puts as many in its place as the picture has tokens. TRL sends it
    as many at once, of which it replaces one, so that it would answer a longer prompt (TRL #6294).

    Args:
        generate: `VLLMGeneration.generate` of TRL.
        placeholder: The token of which vLLM wants one a picture; None if it takes prompts as they are.

    Returns:
        The same, which raises a BackendError if another prompt was answered than the one that was meant.
    """

    def checked(*, prompts: Sequence[Sequence[int]], **kwargs: Any) -> Any:
        output = generate(prompts=[_once(ids, placeholder) for ids in prompts], **kwargs)
        if [list(ids) for ids in output[0]] != [list(ids) for ids in prompts]:
            raise BackendError(
                "vLLM answered other prompts than it was sent: use rollout.engine batched or transformers"
            )
        return output

    return checked


def _once(ids: Sequence[int], token: int | None) -> list[int]:
    """Leave one of each run of a token."""
    return [own for own, before in zip(ids, [None, *ids], strict=False) if own != token or before != token]
