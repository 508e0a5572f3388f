"""Model sizes, models and processors made from scratch, the fast path, and the model that comes with the package.

Importing this imports neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from egm.lazy import lazy_names

if TYPE_CHECKING:
    from egm.models.fast.enable import disable_fast_path, enable_fast_path, is_fast
    from egm.models.fast.rope_index import position_ids
    from egm.models.presets import PRESETS, build_config, build_model, get_preset, get_tiny_preset
    from egm.models.shapes import Preset
    from egm.models.tiny.embedded import embedded_path
    from egm.models.tiny.processor import build_processor
    from egm.models.tiny.tokenizer import train_tokenizer

__all__ = [
    "PRESETS",
    "Preset",
    "build_config",
    "build_model",
    "build_processor",
    "disable_fast_path",
    "embedded_path",
    "enable_fast_path",
    "get_preset",
    "get_tiny_preset",
    "is_fast",
    "position_ids",
    "train_tokenizer",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "fast.enable": ("disable_fast_path", "enable_fast_path", "is_fast"),
        "fast.rope_index": ("position_ids",),
        "presets": ("PRESETS", "build_config", "build_model", "get_preset", "get_tiny_preset"),
        "shapes": ("Preset",),
        "tiny.embedded": ("embedded_path",),
        "tiny.processor": ("build_processor",),
        "tiny.tokenizer": ("train_tokenizer",),
    },
)
