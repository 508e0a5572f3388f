r"""EGM's rows for supervised fine-tuning: `{image, height, width, conversations}`.

The first turn asks, with the phrase in `<ref>` tags or in Qwen's wording; the second answers with
`<box>[x1, y1, x2, y2]</box>` or `"bbox_2d": [x1, y1, x2, y2]`, on the 0-1000 scale, its reasoning before `</think>`.
Source: zgq1879/EGM, `sft/data_generation`, and InternVL's grounding data.
"""

from __future__ import annotations

import re
from typing import Any

from egm.datasets.fields import Row, name_of_picture, pixels, refuse_several_pictures, scaled_1000
from egm.datasets.formats.base import Format
from egm.datasets.image_root import ImageRoot
from egm.datasets.question_phrases import phrase_of
from egm.errors import DataError
from egm.types import Sample

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_FOUR = ",".join([_NUMBER] * 4)
# The label beside bbox_2d is often not escaped, so the text is not read as JSON.
_BOX = re.compile(rf'<box>\s*\[+{_FOUR}\]+\s*</box>|"bbox_2d"\s*:\s*\[{_FOUR}\]')


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row. Its own `id` is not used: EGM's converter writes -1 into every row."""
    question, answer = _turns(row.get("conversations"))
    refuse_several_pictures(question, answer)
    phrase, amodal = phrase_of(question)
    reasoning, _, tail = answer.rpartition("</think>")
    boxes = list(_BOX.finditer(tail))
    if len(boxes) != 1:
        raise DataError(f"the answer holds {len(boxes) or 'no'} boxes: one is needed, as <box>[..]</box> or bbox_2d")
    numbers = [float(value) for value in boxes[0].groups() if value is not None]
    size = pixels(row)
    return [
        Sample(
            id=name,
            image=images(name_of_picture(row.get("image"))),
            phrase=phrase,
            box=scaled_1000(numbers, size, "the answer's box"),
            size=size,
            amodal=amodal,
            rationale=reasoning.replace("<think>", "").strip() or None,
        )
    ]


def _turns(conversations: Any) -> tuple[str, str]:
    try:
        question, answer = (turn["value"] for turn in conversations)
        roles = [turn["from"] for turn in conversations]
    except (TypeError, KeyError, ValueError):
        raise DataError("conversations must hold two turns, each with from and value") from None
    if roles != ["human", "gpt"] or not isinstance(question, str) or not isinstance(answer, str):
        raise DataError(f"conversations must be a turn of human and one of gpt, not {roles!r}")
    return question, answer


FORMAT = Format("EGM SFT", frozenset({"image", "conversations"}), _read, scale="0-1000")
