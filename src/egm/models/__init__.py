"""Model sizes, models and processors made from scratch, the fast path, and the model that comes with the package.

Importing this imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from egm.models.fast.enable import disable_fast_path, enable_fast_path, is_fast
    from egm.models.fast.rope_index import position_ids
    from egm.models.presets import PRESETS, Preset, build_config, build_model, get_preset
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
    "is_fast",
    "position_ids",
    "train_tokenizer",
]

_HOMES = {
    "PRESETS": "presets",
    "Preset": "presets",
    "build_config": "presets",
    "build_model": "presets",
    "build_processor": "tiny.processor",
    "disable_fast_path": "fast.enable",
    "embedded_path": "tiny.embedded",
    "enable_fast_path": "fast.enable",
    "get_preset": "presets",
    "is_fast": "fast.enable",
    "position_ids": "fast.rope_index",
    "train_tokenizer": "tiny.tokenizer",
}


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        return getattr(importlib.import_module(f"egm.models.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
