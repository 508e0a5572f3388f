"""Codecs: one model family's convention each, for asking, for training targets, and for reading answers."""

from __future__ import annotations

from egm.codecs.base import Codec
from egm.codecs.fitting import Fit, Fitting, fit_answers
from egm.codecs.internvl import InternVL
from egm.codecs.keyed import Gemini, Moondream
from egm.codecs.parsing.entries import Repair
from egm.codecs.parsing.forms import Form, Keyed, Tagged, Tokens
from egm.codecs.parsing.reading import Scale
from egm.codecs.prompts import neutralise
from egm.codecs.qwen2_5_vl import Qwen25VL
from egm.codecs.qwen3_vl import Qwen3VL, Qwen3VLInstruct
from egm.codecs.registry import DEFAULT_CODEC, check_family, codec_for, codec_names, get_codec, register_codec
from egm.codecs.tagged import (
    GLMV,
    DeepSeekVL2,
    GroundAnything,
    Kosmos2,
    LocateAnything,
    Qwen2VL,
    QwenVL,
    RexOmni,
    SeedVL,
)
from egm.codecs.targets import THINK_CLOSED, THINK_OPENING
from egm.codecs.tokens import Florence2, PaliGemma

__all__ = [
    "DEFAULT_CODEC",
    "GLMV",
    "THINK_CLOSED",
    "THINK_OPENING",
    "Codec",
    "DeepSeekVL2",
    "Fit",
    "Fitting",
    "Florence2",
    "Form",
    "Gemini",
    "GroundAnything",
    "InternVL",
    "Keyed",
    "Kosmos2",
    "LocateAnything",
    "Moondream",
    "PaliGemma",
    "Qwen2VL",
    "Qwen3VL",
    "Qwen3VLInstruct",
    "Qwen25VL",
    "QwenVL",
    "Repair",
    "RexOmni",
    "Scale",
    "SeedVL",
    "Tagged",
    "Tokens",
    "check_family",
    "codec_for",
    "codec_names",
    "fit_answers",
    "get_codec",
    "neutralise",
    "register_codec",
]
