"""Model sizes by name: the published Qwen3-VL ones, and tiny ones that train from scratch on one GPU in minutes.

The published numbers are those of the models' own `config.json` files; the 8B one is also the table of EGM-8B's model
card. The tiny ones are the same architecture made small: DeepStack, interleaved M-RoPE and tied embeddings included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from egm.errors import ModelError, closest
from egm.extras import CHECKPOINTS, need
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


@dataclass(frozen=True, slots=True)
class Text:
    """Shape of the language model.

    Attributes:
        hidden: Width of the residual stream.
        layers: Decoder layers.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of one head.
        intermediate: Inner width of a dense MLP.
        vocabulary: Rows of the embedding.
        theta: Base of the rotary frequencies.
        mrope: How many of a head's `head_dim / 2` frequencies turn with time, height and width.
        experts: Experts in a layer; 0 for a dense model.
        active_experts: Experts that a token visits.
        expert_intermediate: Inner width of one expert.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    head_dim: int = 128
    vocabulary: int = 151_936
    theta: float = 5_000_000.0
    mrope: tuple[int, int, int] = (24, 20, 20)
    experts: int = 0
    active_experts: int = 0
    expert_intermediate: int = 0


@dataclass(frozen=True, slots=True)
class Vision:
    """Shape of the vision tower: patches of 16 pixels, merged 2 x 2 into one visual token of 32 pixels.

    Attributes:
        hidden: Width of the residual stream.
        depth: Blocks.
        heads: Attention heads.
        intermediate: Inner width of an MLP.
        deepstack: Blocks whose output is also added to the first decoder layers.
        positions: Rows of the learnt position grid, a square.
    """

    hidden: int
    depth: int
    heads: int
    intermediate: int
    deepstack: tuple[int, ...]
    positions: int = 48 * 48


@dataclass(frozen=True, slots=True)
class Preset:
    """A model size.

    Attributes:
        name: What `get_preset` knows it by.
        family: "egm-tiny", "qwen3-vl" or "qwen3-vl-moe".
        parameters: Parameters in all, tied ones counted once.
        context: Longest sequence in tokens.
        text: Shape of the language model.
        vision: Shape of the vision tower.
        tied: Whether input and output embeddings are one.
        hub_ids: Published checkpoints of this size, the one EGM starts from first.
    """

    name: str
    family: str
    parameters: int
    context: int
    text: Text
    vision: Vision
    tied: bool
    hub_ids: tuple[str, ...] = ()

    @property
    def is_tiny(self) -> bool:
        """Whether this is one of EGM's own small sizes, with the small vocabulary."""
        return self.family == "egm-tiny"


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

PRESETS: Final[dict[str, Preset]] = {
    preset.name: preset
    for preset in (
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
}
"""Every size by its name, small to large within a family."""
EMBEDDED_SIZE: Final = "tiny-s"
"""The size of egm-tiny, the model that comes with the package."""


def get_preset(name: str) -> Preset:
    """Look a size up by its name, or by the hub id of one of its checkpoints, in any case.

    Raises:
        ModelError: If there is no such size; the message names the nearest one.

    Example:
        >>> get_preset("8b").text.hidden
        4096
    """
    known = {preset.name.lower(): preset for preset in PRESETS.values()}
    known |= {hub_id.lower(): preset for preset in PRESETS.values() for hub_id in preset.hub_ids}
    if preset := known.get(name.lower()):
        return preset
    meant = closest(name.lower(), known, cutoff=0.0)
    hint = f"did you mean {known[meant].name!r}? " if meant else ""
    raise ModelError(f"no model size {name!r}: {hint}The sizes are {', '.join(PRESETS)}")


def size_text(parameters: int) -> str:
    """Parameters for people, such as `8.8B` or `11.5M`."""
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M"


def build_config(preset: Preset) -> Any:
    """Make the transformers configuration of a size.

    Returns:
        A `Qwen3VLConfig`, or a `Qwen3VLMoeConfig` for the mixture-of-experts sizes.
    """
    need("a model's configuration", "transformers")
    from transformers import Qwen3VLConfig, Qwen3VLMoeConfig

    text, vision = preset.text, preset.vision
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


def build_model(name: str, *, seed: int = 0, dtype: str = "float32", device: str = "cpu") -> Any:
    """Make a model of a size with random weights.

    Args:
        name: A size, see `get_preset`.
        seed: Seed of the weights; the same seed gives the same weights on every machine.
        dtype: Name of the torch type of the weights, such as "float32" or "bfloat16".
        device: "cpu", "cuda" (whose generator gives other weights), or "meta" for shapes without memory.

    Returns:
        A `Qwen3VLForConditionalGeneration` (or its mixture-of-experts kin) in evaluation mode. A tiny one stops at
        `<|im_end|>` and never samples an image or video placeholder, which would break the next step.

    Raises:
        ModelError: If there is no such size or type.
    """
    need("building a model", *CHECKPOINTS)
    import torch
    from transformers import AutoModelForImageTextToText

    preset = get_preset(name)
    torch_dtype = getattr(torch, dtype, None)
    if not isinstance(torch_dtype, torch.dtype) or not torch_dtype.is_floating_point:
        raise ModelError(f"no floating-point type {dtype!r}: use float32, bfloat16 or float16")
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(build_config(preset), dtype=torch_dtype)
    if preset.is_tiny:
        stops = [token_id("<|im_end|>"), token_id("<|endoftext|>")]
        model.generation_config.eos_token_id = stops
        model.generation_config.pad_token_id = stops[1]
        model.generation_config.suppress_tokens = [token_id("<|image_pad|>"), token_id("<|video_pad|>")]
    return model.eval()
