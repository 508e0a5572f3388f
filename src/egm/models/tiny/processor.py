"""The tiny sizes' processor: Qwen3-VL's own classes around the small tokenizer that is shipped with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from egm.extras import CHECKPOINTS, need

_MIN_PIXELS: Final = 64 * 64
"""Area in pixels that a smaller image is enlarged to."""

_MAX_PIXELS: Final = 336 * 336
"""Area in pixels that a larger image is reduced to; within it, sides that are multiples of 32 stay as they are."""

_FOLDER: Final = Path(__file__).with_name("tokenizer_files")
_VIDEO_FRAMES: Final = 16


def build_processor() -> Any:
    """Make the processor of the tiny sizes.

    Returns:
        A `Qwen3VLProcessor`: patches of 16 pixels merged 2 x 2, so one visual token covers 32 x 32 pixels, and a chat
        template that writes turns as Qwen3-VL-Thinking's does. `save_pretrained` it beside a tiny model's weights and
        `AutoProcessor` loads it from there.

    Example:
        >>> build_processor().tokenizer.convert_tokens_to_ids("<|im_end|>")
        2
    """
    need("building a processor", *CHECKPOINTS)
    from transformers import AutoTokenizer, Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    patches = {
        "patch_size": 16,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            size={"shortest_edge": _MIN_PIXELS, "longest_edge": _MAX_PIXELS}, **patches
        ),
        tokenizer=AutoTokenizer.from_pretrained(str(_FOLDER)),
        video_processor=Qwen3VLVideoProcessor(
            size={"shortest_edge": _MIN_PIXELS, "longest_edge": _MAX_PIXELS * _VIDEO_FRAMES}, **patches
        ),
        chat_template=(_FOLDER / "chat_template.jinja").read_text(encoding="utf-8"),
    )
