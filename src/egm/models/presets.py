"""Model sizes by name: the published ones of Qwen3-VL and InternVL, and tiny ones that train from scratch."""

from __future__ import annotations

from typing import Any, Final

from egm.errors import ModelError, closest
from egm.extras import CHECKPOINTS, need
from egm.models.internvl_sizes import INTERNVL_SIZES, internvl_config
from egm.models.qwen3_vl_sizes import QWEN3_VL_SIZES, qwen3_vl_config
from egm.models.shapes import InternViT, Preset
from egm.models.tiny.vocabulary import token_id

PRESETS: Final[dict[str, Preset]] = {preset.name: preset for preset in (*QWEN3_VL_SIZES, *INTERNVL_SIZES)}
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


def get_tiny_preset(name: str) -> Preset:
    """Look up one of EGM's own small sizes, which have a tokenizer and a processor of their own.

    Raises:
        ModelError: If there is no such size, or it is a published one.

    Example:
        >>> get_tiny_preset("tiny-s").is_tiny
        True
    """
    preset = get_preset(name)
    if not preset.is_tiny:
        own = ", ".join(size.name for size in PRESETS.values() if size.is_tiny)
        raise ModelError(f"{preset.name} cannot be built from scratch: only {own} have a tokenizer")
    return preset


def size_text(parameters: int) -> str:
    """Parameters for people, such as `8.8B` or `11.5M`."""
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M"


def build_config(preset: Preset) -> Any:
    """Make the transformers configuration of a size.

    Returns:
        A `Qwen3VLConfig`, a `Qwen3VLMoeConfig` for its mixtures of experts, or an `InternVLConfig`.
    """
    need("a model's configuration", "transformers")
    if isinstance(preset.vision, InternViT):
        return internvl_config(preset, preset.vision)
    return qwen3_vl_config(preset, preset.vision)


def build_model(name: str, *, seed: int = 0, dtype: str = "float32", device: str = "cpu") -> Any:
    """Make a model of a size with random weights.

    Args:
        name: A size, see `get_preset`.
        seed: Seed of the weights; the same seed gives the same weights on every machine.
        dtype: Name of the torch type of the weights, such as "float32" or "bfloat16".
        device: "cpu", "cuda" (whose generator gives other weights), or "meta" for shapes without memory.

    Returns:
        A `Qwen3VLForConditionalGeneration` (or its mixture-of-experts kin) or an `InternVLForConditionalGeneration`, in
        evaluation mode. A tiny one stops at `<|im_end|>` and never samples an image or video placeholder, which would
        break the next step.

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
        placeholders = (getattr(model.config, f"{kind}_token_id", None) for kind in ("image", "video"))
        model.generation_config.suppress_tokens = [token for token in placeholders if token is not None]
    return model.eval()
