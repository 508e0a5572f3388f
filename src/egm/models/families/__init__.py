"""What is known of each model family beside its codec: one file a family, over one interface.

A codec says how a family is asked and read; a `Family` says what training and decoding have to know of its models:
which modules see, project and speak, how pictures and texts become tensors, positions, and what it is not trained with.
Importing this imports neither torch nor transformers.
"""

from egm.models.families.base import (
    GUIDE,
    Family,
    Grid,
    family_names,
    family_of,
    image_tokens,
    register_family,
    trained_family,
)
from egm.models.families.internvl import InternVLFamily
from egm.models.families.qwen_vl import Qwen3VLFamily, Qwen25VLFamily, Qwen35Family

__all__ = [
    "GUIDE",
    "Family",
    "Grid",
    "InternVLFamily",
    "Qwen3VLFamily",
    "Qwen25VLFamily",
    "Qwen35Family",
    "family_names",
    "family_of",
    "image_tokens",
    "register_family",
    "trained_family",
]
