"""What is known of each model family beside its codec: the modules it is made of, its fast path, what trains it.

A codec says how a family is asked and read; a `Family` says what training and decoding have to know of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

GUIDE: Final = "docs/families.md"
"""The page that says how a family is added."""

_NO_COMPILING = "its layers were never compiled here"
_NO_FLATTENING = "the library's own vision tower and layers would read all sequences as one"
_NO_VERL = "verl's side of it was run with Qwen3-VL alone; train it with egm sft"
_NO_ROLLOUTS = "rollouts are decoded and packed by Qwen3-VL's fast path; train it with egm sft"


@dataclass(frozen=True, slots=True)
class Family:
    """What training and decoding know of the models of a family.

    Attributes:
        name: What people call it.
        model_types: What `config.json` calls its architectures.
        parts: The parts that a recipe can freeze, each by how the names of its parameters begin, below whatever the
            model is wrapped in; the embeddings are in the language model.
        fast_path: Whether `enable_fast_path` mends its models. Others go through the library's own forward and
            `generate`: slower, and right.
        batch_decoding: Those of `model_types` that `BatchDecoder` answers evaluation's questions with.
        refusals: What its models are not trained with, a command or a key of a recipe, and why.
    """

    name: str
    model_types: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]
    fast_path: bool = False
    batch_decoding: tuple[str, ...] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)

    def has(self, parameter: str, part: str) -> bool:
        """Tell whether a parameter of this name belongs to a part."""
        return any(f".{prefix}" in f".{parameter}" for prefix in self.parts[part])


_LANGUAGE: Final = {
    "language_model": ("language_model.", "lm_head."),
    "embeddings": ("language_model.embed_tokens.",),
}
_STOCK: Final = {
    "egm grpo": _NO_ROLLOUTS,
    "egm verl": _NO_VERL,
    "run.flatten": _NO_FLATTENING,
    "run.compile": _NO_COMPILING,
}

FAMILIES: Final = (
    Family(
        "Qwen3-VL",
        ("qwen3_vl", "qwen3_vl_moe"),
        {
            "vision_tower": ("visual.patch_embed.", "visual.pos_embed.", "visual.blocks."),
            "projector": ("visual.merger.", "visual.deepstack_merger_list."),
            **_LANGUAGE,
        },
        fast_path=True,
        batch_decoding=("qwen3_vl",),
    ),
    Family(
        "Qwen3.5",
        ("qwen3_5", "qwen3_5_moe"),
        {
            "vision_tower": ("visual.patch_embed.", "visual.pos_embed.", "visual.blocks."),
            "projector": ("visual.merger.",),
            **_LANGUAGE,
        },
        refusals=_STOCK,
    ),
    Family(
        "Qwen2.5-VL",
        ("qwen2_5_vl",),
        {
            "vision_tower": ("visual.patch_embed.", "visual.blocks."),
            "projector": ("visual.merger.",),
            **_LANGUAGE,
        },
        refusals=_STOCK,
    ),
)
"""The families whose models are trained; to ask a model, its codec is enough."""


def family_of(model_type: str) -> Family | None:
    """Return the family of an architecture, as `config.json` names it; None if it is not known here."""
    return next((family for family in FAMILIES if model_type in family.model_types), None)
