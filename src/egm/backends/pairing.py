"""Whether a processor is that of the weights beside it: files of two checkpoints load together, and answer nonsense."""

from __future__ import annotations

from typing import Any

from egm.errors import ModelError
from egm.models.families import family_of


def check_pair(processor: Any, config: Any, name: str) -> None:
    """Refuse a processor that cuts other patches than the tower takes, or whose tokens are not the model's.

    Args:
        processor: The processor.
        config: The model's configuration.
        name: What to call the model in messages.

    Raises:
        ModelError: If they do not belong together.
    """
    family = family_of(config.model_type)
    if family is not None and (why := family.mismatch(processor, config)) is not None:
        _refuse(name, why)
    tokenizer = processor.tokenizer
    for kind in ("image", "video"):
        wanted_id, token = getattr(config, f"{kind}_token_id", None), getattr(processor, f"{kind}_token", None)
        if not isinstance(wanted_id, int) or not isinstance(token, str):
            continue
        found = getattr(processor, f"{kind}_token_id", None)
        found = tokenizer.convert_tokens_to_ids(token) if found is None else found
        if found != wanted_id:
            _refuse(name, f"{token} is {found} in the tokenizer, and {wanted_id} in the model")
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if isinstance(rows, int) and len(tokenizer) > rows and _beyond(processor, rows):
        _refuse(name, f"the tokenizer has {len(tokenizer):,} tokens, the model {rows:,}")


def _beyond(processor: Any, rows: int) -> bool:
    """Tell whether tokens lack a row: `<video>` of InternVL3 does as published, and nothing here asks about videos."""
    video = getattr(processor, "video_token", None)
    return any(number >= rows and token != video for token, number in processor.tokenizer.get_vocab().items())


def _refuse(name: str, why: str) -> None:
    raise ModelError(
        f"the processor and the weights of {name!r} do not belong together: {why}; copy all files of one checkpoint"
    )
