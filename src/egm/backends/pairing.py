"""Whether a processor is that of the weights beside it: files of two checkpoints load together, and answer nonsense."""

from __future__ import annotations

import math
from typing import Any

from egm.errors import ModelError

_SIZES = (
    ("patch_size", "patch_size", "patches of {} pixels"),
    ("merge_size", "spatial_merge_size", "{0} x {0} patches a token"),
    ("temporal_patch_size", "temporal_patch_size", "{} frames a patch"),
)
"""What the image processor of a Qwen-VL model calls a size, what its tower's configuration does, and what it is."""

_MARKS = ("<ref>", "</ref>", "<box>", "</box>")
"""What InternVL's questions and answers set phrases and boxes in."""


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
    if config.model_type == "internvl":
        _check_tiles(processor, config, name)
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


def _check_tiles(processor: Any, config: Any, name: str) -> None:
    """Refuse a processor that cuts other tiles than InternVL's tower takes, or whose tokenizer lacks its marks."""
    counted = getattr(processor, "image_seq_length", None)
    if counted is None:
        _refuse(name, f"a {type(processor).__name__} cuts no tiles, and the model takes them")
    size, vision = processor.image_processor.size, config.vision_config
    cut, taken = [size.get("height"), size.get("width")], list(vision.image_size)
    if cut != taken:
        cut_by, taken_by = (" x ".join(map(str, sides)) for sides in (cut, taken))
        _refuse(name, f"the processor cuts tiles of {cut_by} pixels, the model takes {taken_by}")
    patches = zip(taken, vision.patch_size, strict=False)
    wanted = math.prod(int(side // patch * config.downsample_ratio) for side, patch in patches)
    if counted != wanted:
        _refuse(name, f"the processor writes {counted} tokens for a tile, the model makes {wanted}")
    vocabulary = processor.tokenizer.get_vocab()
    if missing := [mark for mark in _MARKS if mark not in vocabulary]:
        _refuse(name, f"the tokenizer has no {missing[0]}, and the model's questions and answers are written with it")


def _refuse(name: str, why: str) -> None:
    raise ModelError(
        f"the processor and the weights of {name!r} do not belong together: {why}; copy all files of one checkpoint"
    )
