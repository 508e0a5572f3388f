"""Qwen-VL-finetune's conversations: `{image, conversations, codec}`, turns of `human` and `gpt`.

`codec` is EGM's addition, which the tool passes over: it names the family whose convention the answer's box is in. Rows
without it are EGM's own for supervised fine-tuning. Source: QwenLM/Qwen3-VL, `qwen-vl-finetune`.
"""

from __future__ import annotations

from egm.datasets.fields import Row
from egm.datasets.formats.base import Format
from egm.datasets.formats.conversation import CODEC_KEY, sample_of_turns, two_turns
from egm.datasets.image_root import ImageRoot
from egm.types import Sample


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row."""
    turns = two_turns(row.get("conversations"), who="from", says="value", asks=("human",), answers=("gpt",))
    return [sample_of_turns(row, name, images, row.get("image"), *turns)]


FORMAT = Format("Qwen-VL-finetune", frozenset({"image", "conversations", CODEC_KEY}), _read, scale="pixels or 0-1000")
