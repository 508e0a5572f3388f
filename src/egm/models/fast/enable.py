"""The fast path: Qwen3-VL as transformers has it, with the parts mended that leave a GPU idle on many small images.

The stock vision tower embeds patches with a 3-D convolution, calls attention once an image and rebuilds its tables for
each; the stock model scatters visual features by boolean masks, which makes the host wait for the GPU several times a
layer. Here the convolution is the matrix product that it equals, images of one size share an attention call (on recent
GPUs in half precision all images do), tables are made once a grid size, and features are placed by index. Outputs and
gradients are the stock model's, up to the order of sums.

Only instances are patched, so it can be switched off again, and other models in the process stay as they are. To keep
the host ahead of the GPU, compute `position_ids` in the data loader, and pass `image_grid_thw` to the forward as a list
(`generate` wants it as a tensor).
"""

from __future__ import annotations

import warnings
from typing import Any

from egm.models.fast.core import patch_core
from egm.models.fast.patching import is_patched, restore
from egm.models.fast.tower import patch_tower
from egm.models.find_core import cores_of

_POSITIONS = ("get_rope_index", "compute_3d_position_ids")
"""What a core has to have, beside its tower and language model, for the fast path to replace."""


def enable_fast_path(model: Any) -> Any:
    """Mend every Qwen3-VL model, dense or mixture of experts, inside `model`; a mended one stays as it is.

    Parts that this version of transformers builds in an unknown way stay stock, with a warning that names them.

    Args:
        model: A `Qwen3VLForConditionalGeneration`, or anything that holds one, such as a PEFT model.

    Returns:
        The same model.
    """
    cores = [core for core in cores_of(model) if all(hasattr(core, method) for method in _POSITIONS)]
    if not cores:
        warnings.warn(f"{type(model).__name__} holds no Qwen3-VL model: nothing to make faster", stacklevel=2)
    for core in cores:
        unknown = patch_tower(core.visual) + patch_core(core)
        if unknown:
            warnings.warn(f"left as transformers has them: {', '.join(unknown)}", stacklevel=2)
    return model


def disable_fast_path(model: Any) -> Any:
    """Undo `enable_fast_path`, also on a copy of a mended model; do so before pickling a whole model.

    Returns:
        The same model.
    """
    for module in model.modules():
        restore(module)
    return model


def is_fast(model: Any) -> bool:
    """Tell whether the fast path is on anywhere in a model."""
    return any(is_patched(module) for module in model.modules())
