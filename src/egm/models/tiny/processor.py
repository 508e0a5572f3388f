"""The tiny sizes' processors: the library's own classes around the small tokenizer that is shipped with the package."""

from __future__ import annotations

from typing import Any, Final

from egm.extras import CHECKPOINTS, need
from egm.models.presets import get_tiny_preset
from egm.models.shapes import InternViT
from egm.models.tiny.tokenizer import TOKENIZER_FILES, internvl_tokenizer

_MIN_PIXELS: Final = 64 * 64
"""Area in pixels that Qwen3-VL's processor enlarges a smaller image to."""

_MAX_PIXELS: Final = 336 * 336
"""Area in pixels that it reduces a larger image to; within it, sides that are multiples of 32 stay as they are."""

_MAX_TILES: Final = 4
"""Tiles that InternVL's processor cuts an image into at most, beside the whole image made a tile."""

_VIDEO_FRAMES: Final = 16
_INTERNVL_MEAN: Final = [0.485, 0.456, 0.406]
_INTERNVL_STD: Final = [0.229, 0.224, 0.225]


def build_processor(size: str = "tiny-s") -> Any:
    """Make the processor of a tiny size.

    Args:
        size: Its name.

    Returns:
        A `Qwen3VLProcessor`: patches of 16 pixels merged 2 x 2, so one visual token covers 32 x 32 pixels, and a chat
        template that writes turns as Qwen3-VL-Thinking's does. Or, for InternVL's, an `InternVLProcessor`: tiles of the
        tower's size, at most four and the whole picture beside them, and InternVL's chat template. `save_pretrained` it
        beside a tiny model's weights and `AutoProcessor` loads it from there.

    Raises:
        ModelError: If there is no such size, or it is a published one.

    Example:
        >>> build_processor().tokenizer.convert_tokens_to_ids("<|im_end|>")
        2
    """
    need("building a processor", *CHECKPOINTS)
    preset = get_tiny_preset(size)
    return _internvl(preset.vision) if isinstance(preset.vision, InternViT) else _qwen3_vl()


def _qwen3_vl() -> Any:
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
        tokenizer=AutoTokenizer.from_pretrained(str(TOKENIZER_FILES)),
        video_processor=Qwen3VLVideoProcessor(
            size={"shortest_edge": _MIN_PIXELS, "longest_edge": _MAX_PIXELS * _VIDEO_FRAMES}, **patches
        ),
        chat_template=(TOKENIZER_FILES / "chat_template.jinja").read_text(encoding="utf-8"),
    )


def _internvl(vision: InternViT) -> Any:
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    tiles = {
        "size": {"height": vision.tile, "width": vision.tile},
        "image_mean": _INTERNVL_MEAN,
        "image_std": _INTERNVL_STD,
    }
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(crop_to_patches=True, max_patches=_MAX_TILES, **tiles),
        tokenizer=internvl_tokenizer(),
        video_processor=InternVLVideoProcessor(**tiles),
        image_seq_length=vision.tokens,
        chat_template=(TOKENIZER_FILES / "internvl.jinja").read_text(encoding="utf-8"),
    )
