"""Whether a processor is that of the weights beside it: files of two checkpoints load together, and answer nonsense."""

from __future__ import annotations

from typing import Any

from egm.errors import ModelError

_SIZES = (
    ("patch_size", "patch_size", "patches of {} pixels"),
    ("merge_size", "spatial_merge_size", "{0} x {0} patches a token"),
    ("temporal_patch_size", "temporal_patch_size", "{} frames a patch"),
)
"""What the image processor of a Qwen-VL model calls a size, what its tower's configuration does, and what it is."""


def check_pair(processor: Any, config: Any, name: str) -> None:
    """Refuse a processor that cuts other patches than the tower takes, or whose tokens are not the model's.

    Args:
        processor: The processor.
        config: The model's configuration.
        name: What to call the model in messages.

    Raises:
        ModelError: If they do not belong together.
    """
    images, vision = processor.image_processor, getattr(config, "vision_config", None)
    if hasattr(images, "merge_size"):  # others know no grid of patches, or give these names another meaning
        for own, wanted, what in _SIZES:
            cut, taken = getattr(images, own, None), getattr(vision, wanted, None)
            if isinstance(cut, int) and isinstance(taken, int) and cut != taken:
                _refuse(name, f"the processor makes {what.format(cut)}, the model takes {what.format(taken)}")
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
    if isinstance(rows, int) and len(tokenizer) > rows:
        _refuse(name, f"the tokenizer has {len(tokenizer):,} tokens, the model {rows:,}")


def _refuse(name: str, why: str) -> None:
    raise ModelError(
        f"the processor and the weights of {name!r} do not belong together: {why}; copy all files of one checkpoint"
    )
