"""Fused kernels for training: torch.compile on the parts that repeat, once for all layers and all sequence lengths."""

from __future__ import annotations

from typing import Any

from egm.errors import ModelError
from egm.models.find_core import cores_of


def compile_layers(model: Any) -> Any:
    """Compile the decoder layers, and the norms and MLPs of the vision tower, in place.

    Small models are bound by launches and by memory traffic, which fusing saves; attention of the vision tower stays
    as it is, since the fast path gives it another layout for each batch. Parameters and their names do not change.

    Args:
        model: A `Qwen3VLForConditionalGeneration`, or anything that holds one.

    Returns:
        The same model.

    Raises:
        ModelError: If there is no Qwen3-VL model inside.
    """
    import torch

    # Each new mix of aligned and unaligned sizes is one compilation; past the limit layers would run uncompiled.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    cores = cores_of(model)
    if not cores:
        raise ModelError(f"{type(model).__name__} holds no Qwen3-VL model: train it with run.compile set to false")
    for core in cores:
        for layer in core.language_model.layers:
            layer.compile(dynamic=True)
        for block in core.visual.blocks:
            for part in (block.norm1, block.norm2, block.mlp):
                part.compile(dynamic=True)
    return model
