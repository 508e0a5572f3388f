"""Sizes of InternVL, in the architecture that transformers has of its own, and a tiny one that trains from scratch.

The published sizes are InternVL3's `-hf` checkpoints and InternVL3.5's `-HF` ones: the towers as OpenGVLab's conversion
writes them, and the Qwen2.5 and Qwen3 that its documentation names as their text, untied, InternVL3's with a vocabulary
of its own. Their parameters add up to the published ones (tests/models/test_presets.py). InternVL3 stretches its rotary
frequencies beyond its context, which within it changes nothing and is left out; so are the sizes on InternLM3 and on
gpt-oss. The tiny one is the same architecture made small: tiles, pixel unshuffle, a projector, Qwen3's text.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from egm.models.shapes import InternViT, Preset, Text
from egm.models.tiny.vocabulary import TINY_VOCAB_SIZE, token_id

_IMAGE_IDS: Final = {"qwen2": 151_667, "qwen3": 151_671, "qwen3_moe": 151_671}
"""Where the vocabularies of InternVL3 (on Qwen2.5) and of InternVL3.5 (on Qwen3) hold `<IMG_CONTEXT>`."""


def _tiny_text(hidden: int, layers: int, heads: int, intermediate: int, head_dim: int) -> Text:
    return Text(hidden, layers, heads, heads // 2, intermediate, head_dim, TINY_VOCAB_SIZE, 10_000.0, ())


def _published(
    series: str, size: str, parameters: int, text: Text, vision: InternViT, *, context: int, suffix: str
) -> Preset:
    hub_id = f"OpenGVLab/{series.replace('.', '_')}-{size}-{suffix}"
    return Preset(f"{series}-{size}", "internvl", parameters, context, text, vision, tied=False, hub_ids=(hub_id,))


def _internvl3(size: str, parameters: int, shape: tuple[int, int, int, int, int], vision: InternViT) -> Preset:
    hidden, _, heads, *_ = shape
    text = Text(*shape, hidden // heads, 151_674, 1_000_000.0, (), kind="qwen2")
    return _published("InternVL3", size, parameters, text, vision, context=32_768, suffix="hf")


def _internvl3_5(size: str, parameters: int, text: Text, vision: InternViT) -> Preset:
    text = replace(text, theta=1_000_000.0, mrope=())
    return _published("InternVL3.5", size, parameters, text, vision, context=40_960, suffix="HF")


def _experts(hidden: int, layers: int, heads: int, intermediate: int, expert: int) -> Text:
    return Text(
        *(hidden, layers, heads, 4, intermediate),
        experts=128,
        active_experts=8,
        expert_intermediate=expert,
        kind="qwen3_moe",
    )


_VIT_300M: Final = InternViT(hidden=1024, depth=24, heads=16, intermediate=4096)
_VIT_6B: Final = InternViT(hidden=3200, depth=45, heads=25, intermediate=12_800, large=True)

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
    _internvl3("1B", 938_193_024, (896, 24, 14, 2, 4864), _VIT_300M),
    _internvl3("2B", 2_088_957_440, (1536, 28, 12, 2, 8960), _VIT_300M),
    _internvl3("8B", 7_944_373_760, (3584, 28, 28, 4, 18_944), _VIT_300M),
    _internvl3("14B", 15_117_256_704, (5120, 48, 40, 8, 13_824), _VIT_300M),
    _internvl3("38B", 38_388_164_992, (5120, 64, 40, 8, 27_648), _VIT_6B),
    _internvl3("78B", 78_408_318_336, (8192, 80, 64, 8, 29_568), _VIT_6B),
    _internvl3_5("1B", 1_060_897_792, Text(1024, 28, 16, 8, 3072), _VIT_300M),
    _internvl3_5("2B", 2_348_347_392, Text(2048, 28, 16, 8, 6144), _VIT_300M),
    _internvl3_5("4B", 4_732_489_216, Text(2560, 36, 32, 8, 9728), _VIT_300M),
    _internvl3_5("8B", 8_528_318_464, Text(4096, 36, 32, 8, 12_288), _VIT_300M),
    _internvl3_5("14B", 15_119_523_840, Text(5120, 40, 40, 8, 17_408), _VIT_300M),
    _internvl3_5("38B", 38_390_405_504, Text(5120, 64, 64, 8, 25_600), _VIT_6B),
    _internvl3_5("30B-A3B", 30_848_730_112, _experts(2048, 48, 32, 6144, 768), _VIT_300M),
    _internvl3_5("241B-A28B", 240_699_370_368, _experts(4096, 94, 64, 12_288, 1536), _VIT_6B),
)
"""Small to large: the tiny one, InternVL3, InternVL3.5."""


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
    experts: dict[str, Any] = {}
    if text.experts:
        experts = {
            "num_experts": text.experts,
            "num_experts_per_tok": text.active_experts,
            "moe_intermediate_size": text.expert_intermediate,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "norm_topk_prob": True,
        }
    begin, end, image = 151_643, 151_645, _IMAGE_IDS[text.kind]
    if preset.is_tiny:
        begin, end, image = (token_id(token) for token in ("<|endoftext|>", "<|im_end|>", "<IMG_CONTEXT>"))
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
        bos_token_id=begin,
        eos_token_id=end,
        **experts,
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
        image_token_id=image,
        image_seq_length=vision.tokens,
        downsample_ratio=0.5,
        tie_word_embeddings=preset.tied,
    )
