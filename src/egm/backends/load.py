"""Which engine in this process runs a model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from egm.backends.checkpoint import EMBEDDED, Checkpoint, find_checkpoint

if TYPE_CHECKING:
    from egm.backends.numpy.backend import NumpyBackend
    from egm.backends.transformers import TransformersBackend


def load_backend(
    model: str | os.PathLike[str] | Checkpoint, *, device: str = "auto", dtype: str = "auto", fast: bool = True
) -> NumpyBackend | TransformersBackend:
    """Load a model: egm-tiny in NumPy, without importing torch, unless another device or type is asked for.

    Args:
        model: What `find_checkpoint` takes or returns.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        dtype: "auto" (bfloat16 on a GPU, float32 on the CPU), "float32", "bfloat16", "float16" or "fp8"; see
                `TransformersBackend.load`.
        fast: Whether to use the fast paths: NumPy for egm-tiny, and EGM's own Qwen3-VL vision tower elsewhere. False
            runs what transformers has.

    Raises:
        ModelError: If there is no such model, or it does not load.
        MissingExtraError: Without torch and transformers, where it takes them.
    """
    checkpoint = model if isinstance(model, Checkpoint) else find_checkpoint(model)
    if fast and checkpoint.name == EMBEDDED and device in ("auto", "cpu") and dtype in ("auto", "float32"):
        from egm.backends.numpy.backend import NumpyBackend

        return NumpyBackend(checkpoint)
    from egm.backends.transformers import TransformersBackend

    return TransformersBackend.load(checkpoint, device=device, dtype=dtype, fast=fast)
