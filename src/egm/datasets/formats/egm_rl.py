"""The rows for reinforcement learning of EGM and verl: `{prompt, images, reward_model, extra_info}`.

`extra_info.bbox` is the box in pixels where it is given, as `egm data convert` does; else `reward_model.ground_truth`
is on the 0-1000 scale if `data_source` is `grounding`, which is what the official EGM files say. Of any other
`data_source` the scale is not known, and the row is refused.
"""

from __future__ import annotations

from pathlib import Path

from egm.datasets.fields import (
    Row,
    flag,
    name_of_picture,
    pixels,
    refuse_several_pictures,
    scaled_1000,
    short,
    text,
    xyxy,
)
from egm.datasets.formats.base import Format
from egm.datasets.image_root import ImageRoot
from egm.datasets.question_phrases import phrase_of
from egm.errors import DataError
from egm.types import Sample

OFFICIAL = "grounding"
"""The `data_source` of the official EGM files, whose `ground_truth` is on the 0-1000 scale."""


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row for reinforcement learning."""
    extra = row.get("extra_info") or {}
    if not isinstance(extra, dict):
        raise DataError("extra_info must be an object")
    try:
        question = next(turn["content"] for turn in row["prompt"] if turn["role"] == "user")
        truth = row["reward_model"].get("ground_truth")
        pictures = row.get("images") or []
        texts = [turn["content"] for turn in row["prompt"]]
    except (TypeError, KeyError, AttributeError, StopIteration):
        raise DataError("prompt must hold a turn of the user, and reward_model a ground_truth") from None
    if not isinstance(question, str) or not isinstance(pictures, list):
        raise DataError("the user's content must be a string, and images a list")
    first = name_of_picture(pictures)
    refuse_several_pictures(*texts)
    phrase, amodal = (text(extra, "sent"), flag(extra, "amodal")) if "sent" in extra else phrase_of(question)
    size = pixels(extra)
    if extra.get("bbox") is not None:
        box = xyxy(extra["bbox"], "extra_info.bbox")
    elif row.get("data_source") == OFFICIAL:
        box = scaled_1000(truth, size, "ground_truth")
    else:
        raise DataError(
            f"data_source {short(row.get('data_source'))} does not say on which scale ground_truth is: "
            "give the box in pixels as extra_info.bbox"
        )
    if isinstance(first, dict):
        first = first.get("image") or first.get("path")
    image = images(first) if "images" in row else Path(name)  # without that column, the pictures are in the file
    rationale = extra.get("rationale")
    own = extra.get("id")  # official files carry -1 in every row
    meta = {key: extra[key] for key in ("split", "index") if extra.get(key) is not None}
    return [
        Sample(
            own if isinstance(own, str) and own else name,
            image,
            phrase,
            box,
            size,
            amodal,
            rationale if isinstance(rationale, str) and rationale else None,
            meta,
        )
    ]


_COLUMNS = frozenset({"data_source", "prompt", "images", "reward_model", "extra_info"})
FORMAT = Format(
    "EGM or verl RL", frozenset({"prompt", "reward_model", "images"}), _read, scale="pixels or 0-1000", columns=_COLUMNS
)
