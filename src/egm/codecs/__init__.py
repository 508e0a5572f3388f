"""Codecs: one model family's convention each, for asking, for training targets, and for reading answers."""

from __future__ import annotations

from egm.codecs.base import Codec
from egm.codecs.internvl import InternVL
from egm.codecs.parsing.entries import Repair
from egm.codecs.parsing.reading import Scale
from egm.codecs.prompts import neutralise
from egm.codecs.qwen2_5_vl import Qwen25VL
from egm.codecs.qwen3_vl import Qwen3VL, Qwen3VLInstruct
from egm.codecs.registry import DEFAULT_CODEC, check_family, codec_for, codec_names, get_codec, register_codec

__all__ = [
    "DEFAULT_CODEC",
    "Codec",
    "InternVL",
    "Qwen3VL",
    "Qwen3VLInstruct",
    "Qwen25VL",
    "Repair",
    "Scale",
    "check_family",
    "codec_for",
    "codec_names",
    "get_codec",
    "neutralise",
    "register_codec",
]
