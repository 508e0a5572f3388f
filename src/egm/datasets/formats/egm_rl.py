"""The rows for reinforcement learning of EGM and verl: `{prompt, images, reward_model, extra_info}`.

`extra_info.bbox` is the box in pixels where it is given, as `egm data convert` does; else `reward_model.ground_truth`
is on the 0-1000 scale if `data_source` is `grounding`, which is what the official EGM files say. Of any other
`data_source` the scale is not known, and the row is refused. So is a row that says two boxes or two phrases.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from egm.boxes import Box
from egm.codecs import neutralise
from egm.datasets.fields import (
    PICTURE,
    Row,
    flag,
    is_coordinate,
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


def refuse_other_truth(box: Box, truth: Any, size: tuple[int, int] | None, *, scales: Collection[str]) -> None:
    """Refuse a row that says two true boxes; what is no list of four numbers says none.

    Args:
        box: `extra_info.bbox`, in pixels.
        truth: `ground_truth`, as numbers or as JSON.
        size: Width and height of the image in pixels; on the 0-1000 scale nothing can be compared without it.
        scales: Those that `ground_truth` may be on, of "pixels" and "0-1000".

    Raises:
        DataError: If they differ on each of these by more than rounding does: a pixel, or a thousandth of the side.
    """
    try:
        numbers = json.loads(truth) if isinstance(truth, str) else truth
    except (ValueError, RecursionError):
        return
    if not isinstance(numbers, list | tuple) or len(numbers) != 4 or not all(map(is_coordinate, numbers)):
        return
    if size is None and "0-1000" in scales:
        return
    width, height = size or (1000, 1000)
    factors = [(width / 1000, height / 1000) if scale == "0-1000" else (1.0, 1.0) for scale in scales]
    if not any(
        all(
            abs(number * factor - corner) <= max(1.0, side / 1000) + 0.01
            for number, factor, corner, side in zip(numbers, across_down * 2, box, (width, height) * 2, strict=True)
        )
        for across_down in factors
    ):
        raise DataError(
            f"ground_truth {short(list(numbers))} and extra_info.bbox {short(list(box))} are two boxes: keep one"
        )


def _said(question: str, extra: Row) -> tuple[str, bool]:
    """Return the phrase that `extra_info` says, and whether the whole object is meant, unless the question says else.

    Raises:
        DataError: If the question, in a known wording, is about another phrase, or about the other sort of box.
    """
    phrase, amodal = text(extra, "sent"), flag(extra, "amodal")
    try:
        asked, is_amodal = phrase_of(question)
    except DataError:  # a wording of somebody's own
        return phrase, amodal
    if is_amodal and _words(phrase) == _words(f"{asked} amodally"):
        asked, is_amodal = phrase, False
    if _words(asked) != _words(phrase):
        raise DataError(f"prompt asks for {short(asked)}, and extra_info.sent is {short(phrase)}: keep the right one")
    if extra.get("amodal") is not None and amodal != is_amodal:
        asks = "asks" if is_amodal else "does not ask"
        raise DataError(f"prompt {asks} for the whole object, and extra_info.amodal is {short(extra['amodal'])}")
    return phrase, is_amodal


def _words(phrase: str) -> str:
    """A phrase as prompts hold it, without what they do to it."""
    return " ".join(neutralise(phrase).split()).rstrip(". ").casefold()


def _read(row: Row, name: str, images: ImageRoot) -> list[Sample]:
    """Read a row for reinforcement learning."""
    extra = row.get("extra_info") or {}
    if not isinstance(extra, dict):
        raise DataError("extra_info must be an object")
    try:
        question = next(turn["content"] for turn in reversed(row["prompt"]) if turn["role"] == "user")
        truth = row["reward_model"].get("ground_truth")
        pictures = row.get("images") or []
        texts = [turn["content"] for turn in row["prompt"]]
    except (TypeError, KeyError, AttributeError, StopIteration):
        raise DataError("prompt must hold a turn of the user, and reward_model a ground_truth") from None
    if not isinstance(question, str) or not isinstance(pictures, list):
        raise DataError("the user's content must be a string, and images a list")
    first = name_of_picture(pictures)
    refuse_several_pictures(*texts)
    phrase, amodal = _said(question, extra) if extra.get("sent") is not None else phrase_of(question)
    size, is_official = pixels(extra), row.get("data_source") == OFFICIAL
    if extra.get("bbox") is not None:
        box = xyxy(extra["bbox"], "extra_info.bbox")
        refuse_other_truth(box, truth, size, scales=("0-1000",) if is_official else ("pixels", "0-1000"))
    elif is_official:
        box = scaled_1000(truth, size, "ground_truth")
    else:
        raise DataError(
            f"data_source {short(row.get('data_source'))} does not say on which scale ground_truth is: "
            "give the box in pixels as extra_info.bbox"
        )
    if isinstance(first, dict):
        first = first.get("image") or first.get("path")
    # Without that column, the pictures are in the file.
    image = images(first) if "images" in row else Path(row.get(PICTURE) or name)
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
    "EGM or verl RL",
    frozenset({"prompt", "reward_model", "images"}),
    _read,
    scale="pixels or 0-1000",
    columns=_COLUMNS,
    picture_keys=frozenset({"images"}),
)
