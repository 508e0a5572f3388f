"""Prompts as vLLM takes them, and a check that it answered those that it was sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from egm.errors import BackendError
from egm.models.families import Family


@dataclass(frozen=True, slots=True)
class PictureTokens:
    """The tokens that stand for a picture in a prompt: runs of one, between what begins and what ends a picture.

    Attributes:
        token: The one that there are as many of as the picture takes; vLLM wants one of it for all.
        before: Those that stand before the run.
        after: Those that stand behind it.
    """

    token: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


def picture_tokens(family: Family, processor: Any) -> PictureTokens:
    """Return how a family's placeholders are made up, by those of a small picture."""
    text, token = family.placeholders(processor, family.grid(processor, (64, 64))), processor.image_token_id
    ids = list(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    first, last = ids.index(token), len(ids) - ids[::-1].index(token)
    return PictureTokens(token, tuple(ids[:first]), tuple(ids[last:]))


def checked_generate(generate: Callable[..., Any], picture: PictureTokens | None) -> Callable[..., Any]:
    """Wrap vLLM's `generate`: prompts go in its own form, and the prompt ids that come back are compared.

    vLLM's engine takes one placeholder a picture, as the chat template writes it, and puts in its place what the family
    has there. TRL sends it all of that at once, of which it replaces one, so that it would answer a longer prompt (TRL
    #6294).

    Args:
        generate: `VLLMGeneration.generate` of TRL.
        picture: What stands for a picture, where vLLM wants one placeholder; None if it takes prompts as they are.

    Returns:
        The same, which raises a BackendError if another prompt was answered than the one that was meant.
    """

    def checked(*, prompts: Sequence[Sequence[int]], **kwargs: Any) -> Any:
        output = generate(prompts=[_collapse(ids, picture) for ids in prompts], **kwargs)
        if [list(ids) for ids in output[0]] != [list(ids) for ids in prompts]:
            raise BackendError(
                "vLLM answered other prompts than it was sent: use rollout.engine batched or transformers"
            )
        return output

    return checked


def _collapse(ids: Sequence[int], picture: PictureTokens | None) -> list[int]:
    """Leave one placeholder of each picture, without what stands around them."""
    if picture is None:
        return list(ids)
    left: list[int] = []
    place = 0
    while place < len(ids):
        first = place + len(picture.before)
        if tuple(ids[place:first]) != picture.before or first >= len(ids) or ids[first] != picture.token:
            left.append(ids[place])
            place += 1
            continue
        place = next((end for end in range(first, len(ids)) if ids[end] != picture.token), len(ids))
        place += len(picture.after) * (tuple(ids[place : place + len(picture.after)]) == picture.after)
        left.append(picture.token)
    return left
