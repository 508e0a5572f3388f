"""What an answer costs in floating-point operations and in bytes moved, computed from a model's shape.

Counted are the products of matrices, which are nearly all there is: one of (a, b) with (b, c) is 2abc operations.
Attention counts every pair of a query and a key, as `torch.utils.flop_counter` does; kernels that skip what a causal
mask hides take up to half of that part. Bytes are what moves between memory and processor: the weights that a pass over
the model reads, once a pass, and the keys and values of the cache. Activations are left out, as they mostly stay on the
chip. Of a mixture of experts those that a token visits count, and a pass reads as many as its tokens are expected to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from egm.codecs.resize import smart_resize
from egm.errors import ModelError
from egm.models.presets import EMBEDDED_SIZE, get_preset
from egm.models.shapes import Text, Vision

_PATCH: Final = 16  # pixels
_MERGE: Final = 2  # patches of a side of a visual token
_PATCH_NUMBERS: Final = 3 * 2 * _PATCH * _PATCH  # colours, frames, pixels
_CARD_PIXELS: Final = (65_536, 16_777_216)  # least and most, as Qwen3-VL's processor_config.json has them
_MOST_BYTES: Final = 2**24  # of a configuration
_TINY_PIXELS: Final = (4096, 112_896)


@dataclass(frozen=True, slots=True)
class Cost:
    """What something takes.

    Attributes:
        operations: Floating-point operations.
        bytes: Bytes read from memory.
    """

    operations: float
    bytes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.operations + other.operations, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class CostModel:
    """The costs of a model of Qwen3-VL's architecture.

    Attributes:
        text: Shape of its language model.
        vision: Shape of its vision tower.
        pixels: Least and most pixels that its processor gives it to see.
        width: Bytes of a number: 2 of bfloat16, 4 of float32.
        layer_width: Bytes of a weight of the language model's layers, where it is another: 1 of fp8.
    """

    text: Text
    vision: Vision
    pixels: tuple[int, int] = _CARD_PIXELS
    width: int = 2
    layer_width: int | None = None

    def answer(self, size: tuple[int, int], *, prompt: int, written: int, at_once: int = 1) -> Cost:
        """Cost of an answer to a question about one picture.

        Args:
            size: Width and height of the picture in pixels.
            prompt: Tokens read, the visual ones included.
            written: Tokens generated, the stop token included.
            at_once: Answers that are computed together, and share what a pass reads of the weights.
        """
        read = self.look(size, at_once=at_once) + self.pass_over(prompt, prompt, scored=1, at_once=at_once)
        # The last token is not read again. Sums over the steps: each is a token with all before it in the cache.
        steps = max(0, written - 1)
        if not steps:
            return read
        step = self.pass_over(1, prompt + (steps + 1) / 2, scored=1, at_once=at_once)  # their mean: costs are linear
        return read + Cost(steps * step.operations, steps * step.bytes)

    def look(self, size: tuple[int, int], *, at_once: int = 1) -> Cost:
        """Cost of the vision tower; arguments as of `answer`."""
        vision, patches = self.vision, self.patches(size)
        wide, merged = vision.hidden * _MERGE**2, patches / _MERGE**2
        block = 4 * vision.hidden**2 + 2 * vision.hidden * vision.intermediate
        merger = (1 + len(vision.deepstack)) * (wide**2 + wide * self.text.hidden)
        products = patches * (_PATCH_NUMBERS * vision.hidden + vision.depth * block) + merged * merger
        attention = 2 * vision.depth * patches**2 * vision.hidden
        weights = _PATCH_NUMBERS * vision.hidden + vision.depth * block + merger
        return Cost(2 * (products + attention), self.width * weights / at_once)

    def patches(self, size: tuple[int, int]) -> int:
        """How many patches a picture becomes; a visual token is four of them."""
        factor, (least, most) = _PATCH * _MERGE, self.pixels
        width, height = smart_resize(size, factor=factor, min_pixels=least, max_pixels=most)
        return (width // _PATCH) * (height // _PATCH)

    def pass_over(self, tokens: int, context: float, *, scored: int, at_once: int = 1) -> Cost:
        """Cost of one pass of the language model.

        Args:
            tokens: Tokens that it reads.
            context: Tokens that each of them sees, itself included.
            scored: How many of them are followed by a token to choose, for which the whole vocabulary is scored.
            at_once: Sequences that are read in the same pass.
        """
        text = self.text
        heads, shared = text.heads * text.head_dim, text.kv_heads * text.head_dim
        attended = text.hidden * (2 * heads + 2 * shared)
        if text.experts:
            one = 3 * text.hidden * text.expert_intermediate
            router, visited = text.hidden * text.experts, text.active_experts * one
            missed = (1 - text.active_experts / text.experts) ** (tokens * at_once)
            read = router + text.experts * (1 - missed) * one
            mlp = router + visited
        else:
            mlp = read = 3 * text.hidden * text.intermediate
        head = text.hidden * text.vocabulary
        products = tokens * text.layers * (attended + mlp) + scored * head
        attention = 2 * text.layers * tokens * context * heads
        layers = text.layers * (attended + read) * (self.layer_width or self.width)
        cache = 2 * text.layers * shared * (context if tokens == 1 else tokens)
        return Cost(2 * (products + attention), (layers + self.width * head) / at_once + self.width * cache)


def cost_model(model: str, *, width: int = 2) -> CostModel | None:
    """Find the costs of a model by its name: a size, a hub id of one, egm-tiny, or a folder with a configuration.

    Args:
        model: The name.
        width: Bytes of a number.

    Returns:
        Its costs; None where it is not known, or not of Qwen3-VL's architecture.
    """
    try:
        preset = get_preset(EMBEDDED_SIZE if model == "egm-tiny" else model)
    except ModelError:
        return _of_folder(Path(model), width)
    if not isinstance(preset.vision, Vision):
        return None
    return CostModel(preset.text, preset.vision, _TINY_PIXELS if preset.is_tiny else _CARD_PIXELS, width)


def cost_model_of(config: Mapping[str, Any]) -> CostModel | None:
    """Read the costs off a `config.json`; None where it is none of Qwen3-VL, or lacks what is needed."""
    if config.get("model_type") not in ("qwen3_vl", "qwen3_vl_moe"):
        return None
    try:
        text, vision = config["text_config"], config["vision_config"]
        usual = (vision["patch_size"], vision["spatial_merge_size"], vision.get("temporal_patch_size", 2))
        sparse = text.get("mlp_only_layers", []), text.get("decoder_sparse_step", 1)
        if usual != (_PATCH, _MERGE, 2) or sparse != ([], 1):
            return None
        experts = text.get("num_experts", text.get("num_local_experts", 0))
        if bool(experts) != (config["model_type"] == "qwen3_vl_moe"):
            return None
        shape = Text(
            hidden=text["hidden_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            kv_heads=text["num_key_value_heads"],
            intermediate=text.get("intermediate_size", 0),
            head_dim=text.get("head_dim", 128),
            vocabulary=text["vocab_size"],
            experts=experts,
            active_experts=text.get("num_experts_per_tok", 0),
            expert_intermediate=text.get("moe_intermediate_size", 0),
        )
        tower = Vision(
            hidden=vision["hidden_size"],
            depth=vision["depth"],
            heads=vision["num_heads"],
            intermediate=vision["intermediate_size"],
            deepstack=tuple(vision["deepstack_visual_indexes"]),
        )
        return CostModel(shape, tower)
    except (KeyError, TypeError, AttributeError):
        return None


def _of_folder(folder: Path, width: int) -> CostModel | None:
    config, processor = (_json(folder / name) for name in ("config.json", "processor_config.json"))
    found = None if config is None else cost_model_of(config)
    if found is None:
        return None
    processor = (processor or {}).get("image_processor") or _json(folder / "preprocessor_config.json") or {}
    limits = processor.get("size") or {}
    low, high = limits.get("shortest_edge"), limits.get("longest_edge")
    if isinstance(low, int) and isinstance(high, int) and 0 < low <= high:
        found = replace(found, pixels=(low, high))
    return replace(found, width=width)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
