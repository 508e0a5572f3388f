"""Sizes of Qwen3-VL: the published ones, and tiny ones that train from scratch on one GPU in minutes.

The published numbers are those of the models' own `config.json` files; the 8B one is also the table of EGM-8B's model
card. The tiny ones are the same architecture made small: DeepStack, interleaved M-RoPE and tied embeddings included.
"""

from __future__ import annotations

from typing import Any, Final

from egm.models.shapes import Preset, Text, Vision
from egm.models.tiny.vocabulary import TINY_VOCAB_SIZE, token_id

QWEN_SPECIAL_IDS: Final = {
    "<|endoftext|>": 151643,
    "<|im_end|>": 151645,
    "<|vision_start|>": 151652,
    "<|vision_end|>": 151653,
    "<|image_pad|>": 151655,
    "<|video_pad|>": 151656,
}
"""Where Qwen3-VL's own vocabulary holds the tokens that a configuration names."""


def _tiny(name: str, parameters: int, text: Text, vision: Vision) -> Preset:
    return Preset(name, "egm-tiny", parameters, 4096, text, vision, tied=True)


def _qwen(
    name: str, parameters: int, text: Text, vision: Vision, *, tied: bool = False, egm: tuple[str, ...] = ()
) -> Preset:
    hub_ids = tuple(f"Qwen/Qwen3-VL-{name}-{edition}" for edition in ("Thinking", "Instruct"))
    family = "qwen3-vl-moe" if text.experts else "qwen3-vl"
    return Preset(name, family, parameters, 262_144, text, vision, tied, hub_ids + egm)


def _tiny_text(
    hidden: int, layers: int, heads: int, intermediate: int, head_dim: int, mrope: tuple[int, int, int]
) -> Text:
    return Text(hidden, layers, heads, heads // 2, intermediate, head_dim, TINY_VOCAB_SIZE, 10_000.0, mrope)


_SMALL_TOWER: Final = Vision(hidden=1024, depth=24, heads=16, intermediate=4096, deepstack=(5, 11, 17))
_EGM_4B: Final = ("nvidia/EGM-4B",)
_EGM_8B: Final = ("nvidia/EGM-8B-SFT", "nvidia/EGM-8B")  # after the first stage, and after both
_LARGE_TOWER: Final = Vision(hidden=1152, depth=27, heads=16, intermediate=4304, deepstack=(8, 16, 24))

QWEN3_VL_SIZES: Final = (
    _tiny(
        "tiny-s",
        11_477_824,
        _tiny_text(256, 6, 8, 1024, 32, (6, 5, 5)),
        Vision(hidden=192, depth=6, heads=6, intermediate=768, deepstack=(1, 3), positions=16 * 16),
    ),
    _tiny(
        "tiny-m",
        40_432_704,
        _tiny_text(512, 8, 8, 1536, 64, (12, 10, 10)),
        Vision(hidden=320, depth=6, heads=5, intermediate=1280, deepstack=(1, 3), positions=16 * 16),
    ),
    _tiny(
        "tiny-l",
        200_168_448,
        _tiny_text(1024, 12, 16, 2816, 64, (12, 10, 10)),
        Vision(hidden=512, depth=10, heads=8, intermediate=2048, deepstack=(2, 5, 8), positions=24 * 24),
    ),
    _qwen("2B", 2_127_532_032, Text(2048, 28, 16, 8, 6144), _SMALL_TOWER, tied=True),
    _qwen("4B", 4_437_815_808, Text(2560, 36, 32, 8, 9728), _SMALL_TOWER, tied=True, egm=_EGM_4B),
    _qwen("8B", 8_767_123_696, Text(4096, 36, 32, 8, 12_288), _LARGE_TOWER, egm=_EGM_8B),
    _qwen("32B", 33_357_390_064, Text(5120, 64, 64, 8, 25_600), _LARGE_TOWER),
    _qwen(
        "30B-A3B",
        31_070_754_032,
        Text(2048, 48, 32, 4, 6144, experts=128, active_experts=8, expert_intermediate=768),
        _LARGE_TOWER,
    ),
    _qwen(
        "235B-A22B",
        235_670_022_896,
        Text(4096, 94, 64, 4, 12_288, experts=128, active_experts=8, expert_intermediate=1536),
        _LARGE_TOWER,
    ),
)
"""Small to large: the tiny ones, the dense ones, and the mixtures of experts."""


def qwen3_vl_config(preset: Preset, vision: Vision) -> Any:
    """Make the transformers configuration of a size.

    Args:
        preset: The size.
        vision: Its vision tower.

    Returns:
        A `Qwen3VLConfig`, or a `Qwen3VLMoeConfig` for the mixture-of-experts sizes.
    """
    from transformers import Qwen3VLConfig, Qwen3VLMoeConfig

    text = preset.text
    ids = {token: token_id(token) for token in QWEN_SPECIAL_IDS} if preset.is_tiny else QWEN_SPECIAL_IDS
    text_config: dict[str, Any] = {
        "vocab_size": text.vocabulary,
        "hidden_size": text.hidden,
        "intermediate_size": text.intermediate,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "num_key_value_heads": text.kv_heads,
        "head_dim": text.head_dim,
        "max_position_embeddings": preset.context,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": text.theta,
            "mrope_section": list(text.mrope),
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": preset.tied,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
    }
    if text.experts:
        text_config |= {
            "num_experts": text.experts,
            "num_experts_per_tok": text.active_experts,
            "moe_intermediate_size": text.expert_intermediate,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    vision_config = {
        "hidden_size": vision.hidden,
        "depth": vision.depth,
        "num_heads": vision.heads,
        "intermediate_size": vision.intermediate,
        "out_hidden_size": text.hidden,
        "num_position_embeddings": vision.positions,
        "deepstack_visual_indexes": list(vision.deepstack),
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    config_class = Qwen3VLMoeConfig if text.experts else Qwen3VLConfig
    return config_class(
        text_config=text_config,
        vision_config=vision_config,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=preset.tied,
    )
