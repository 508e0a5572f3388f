"""Sizes of InternVL, in the architecture that transformers has of its own, and tiny ones that train from scratch.

The tiny ones are the same architecture made small: a tower that sees tiles, pixel unshuffle, a projector, Qwen3's text.
"""

from __future__ import annotations

from typing import Any, Final

from egm.models.shapes import InternViT, Preset, Text
from egm.models.tiny.vocabulary import TINY_VOCAB_SIZE, token_id


def _tiny_text(hidden: int, layers: int, heads: int, intermediate: int, head_dim: int) -> Text:
    return Text(hidden, layers, heads, heads // 2, intermediate, head_dim, TINY_VOCAB_SIZE, 10_000.0, ())


INTERNVL_SIZES: Final = (
    Preset(
        "internvl-tiny-s",
        "internvl",
        9_201_472,
        4096,
        _tiny_text(256, 6, 8, 1024, 32),
        InternViT(hidden=192, depth=6, heads=6, intermediate=768, tile=160, patch=16),
        tied=True,
    ),
)
"""Small to large: the tiny ones, InternVL3, InternVL3.5."""


def internvl_config(preset: Preset, vision: InternViT) -> Any:
    """Make the transformers configuration of a size.

    Args:
        preset: The size.
        vision: Its vision tower.

    Returns:
        An `InternVLConfig`.
    """
    from transformers import AutoConfig, InternVLConfig

    text = preset.text
    language = AutoConfig.for_model(
        text.kind,
        vocab_size=text.vocabulary,
        hidden_size=text.hidden,
        intermediate_size=text.intermediate,
        num_hidden_layers=text.layers,
        num_attention_heads=text.heads,
        num_key_value_heads=text.kv_heads,
        head_dim=text.head_dim,
        max_position_embeddings=preset.context,
        rope_parameters={"rope_type": "default", "rope_theta": text.theta},
        tie_word_embeddings=preset.tied,
        bos_token_id=token_id("<|endoftext|>"),
        eos_token_id=token_id("<|im_end|>"),
    )
    tower = {
        "hidden_size": vision.hidden,
        "num_hidden_layers": vision.depth,
        "num_attention_heads": vision.heads,
        "intermediate_size": vision.intermediate,
        "image_size": [vision.tile, vision.tile],
        "patch_size": [vision.patch, vision.patch],
        "norm_type": "rms_norm" if vision.large else "layer_norm",
        "use_qk_norm": vision.large,
        "attention_bias": not vision.large,
    }
    return InternVLConfig(
        text_config=language,
        vision_config=tower,
        image_token_id=token_id("<IMG_CONTEXT>"),
        image_seq_length=vision.tokens,
        downsample_ratio=0.5,
        tie_word_embeddings=preset.tied,
    )
