"""Codecs: one model family's convention each, for asking, for training targets, and for reading answers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from egm.codecs.base import Codec
from egm.codecs.internvl import InternVL
from egm.codecs.parsing.entries import Repair
from egm.codecs.prompts import neutralise
from egm.codecs.qwen2_5_vl import Qwen25VL
from egm.codecs.qwen3_vl import Qwen3VL
from egm.errors import ModelError, nearest

__all__ = ["Codec", "InternVL", "Qwen3VL", "Qwen25VL", "Repair", "codec_names", "get_codec", "neutralise"]

_CODECS: dict[str, type[Qwen3VL] | type[Qwen25VL] | type[InternVL]] = {
    codec.name: codec for codec in (Qwen3VL, Qwen25VL, InternVL)
}


def codec_names() -> tuple[str, ...]:
    """Names that `get_codec` knows, sorted."""
    return tuple(sorted(_CODECS))


def get_codec(name: str, **options: Any) -> Codec:
    """Make the codec of a model family.

    Args:
        name: One of `codec_names()`.
        **options: What the family's codec takes: `thinking_prefilled` for `qwen3_vl`; `min_pixels` and `max_pixels` for
            `qwen2_5_vl`.

    Raises:
        ModelError: If the name or an option is unknown.

    Example:
        >>> get_codec("qwen3_vl", thinking_prefilled=False).name
        'qwen3_vl'
    """
    if name not in _CODECS:
        raise ModelError(f"unknown codec {name!r}: {nearest(name, codec_names())}")
    codec = _CODECS[name]
    known = tuple(field.name for field in fields(codec))
    for option in options:
        if option not in known:
            hint = nearest(option, known) if known else "it takes none"
            raise ModelError(f"codec {name!r} has no option {option!r}: {hint}")
    return codec(**options)
