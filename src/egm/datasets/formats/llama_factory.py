"""LLaMA-Factory's conversations in the sharegpt form: `{conversations, images}`, turns of `human` and `gpt`.

The form with turns of `user` and `assistant` under `messages` is that of ms-swift too (`ms_swift`). `codec` is EGM's
addition, which the tool passes over. Source: hiyouga/LLaMA-Factory, `data/README.md` and `src/llamafactory/data`.
"""

from __future__ import annotations

from egm.datasets.fields import Row
from egm.datasets.formats.base import Format
from egm.datasets.formats.conversation import sample_of_turns, two_turns
from egm.datasets.image_root import ImageRoot
from egm.types import Sample


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row."""
    turns = two_turns(row.get("conversations"), who="from", says="value", asks=("human",), answers=("gpt",))
    return [sample_of_turns(row, name, images, row.get("images"), *turns)]


FORMAT = Format("LLaMA-Factory", frozenset({"conversations", "images"}), _read, scale="pixels or 0-1000")
