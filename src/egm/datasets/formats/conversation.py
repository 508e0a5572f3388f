"""What files of conversations share: a question and an answer in a family's convention, which is declared.

The numbers of such an answer mean pixels of one size or another, or thousandths, by the family that they were written
for. Nothing guesses that: each row says `codec`, the name of that convention, or whoever opens the file does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from egm.boxes import Box
from egm.codecs import Codec, get_codec
from egm.codecs.targets import whole_numbers
from egm.datasets.fields import (
    Row,
    flag,
    identity,
    name_of_picture,
    pixels,
    refuse_several_pictures,
    short,
    text,
    xyxy,
)
from egm.datasets.image_root import ImageRoot
from egm.datasets.inputs import JsonError, load_json
from egm.datasets.question_phrases import phrase_of
from egm.errors import DataError, ImageError, ModelError
from egm.images import read_picture_header
from egm.types import Sample

CODEC_KEY: Final = "codec"
"""The key of a row that names the convention of its answer."""


def two_turns(turns: Any, *, who: str, says: str, asks: tuple[str, ...], answers: tuple[str, ...]) -> tuple[str, str]:
    """Read a question and its answer.

    Args:
        turns: The turns of a row.
        who: The key of a turn that names the speaker.
        says: The key that holds the words.
        asks: Names of the one who asks.
        answers: Names of the one who answers.

    Raises:
        DataError: If there are others than these two, but for a system's turn before them.
    """
    try:
        spoken = [(turn[who], turn[says]) for turn in turns]
    except (TypeError, KeyError):
        raise DataError(f"must hold turns, each with {who} and {says}") from None
    spoken = spoken[1:] if spoken and spoken[0][0] == "system" else spoken
    roles = [role for role, _ in spoken]
    if len(spoken) != 2 or roles[0] not in asks or roles[1] not in answers:
        raise DataError(f"must hold a turn of {asks[0]} and one of {answers[0]}, not {short(roles)}")
    question, answer = spoken[0][1], spoken[1][1]
    if not isinstance(question, str) or not isinstance(answer, str):
        raise DataError("has a turn that holds no text")
    return question, answer


def sample_of_turns(
    row: Row, name: str, images: ImageRoot, picture: Any, question: str, answer: str, *, box: Box | None = None
) -> Sample:
    """Make the sample of a question and an answer.

    Args:
        row: Where `codec` is, and as far as it says them `id`, `sent`, `bbox` (x1, y1, x2, y2 in pixels), `width`,
            `height`, `amodal` and `meta`.
        name: Id of the sample where the row has none.
        images: Where images are.
        picture: The picture's name, or a list of it.
        question: What is asked.
        answer: What is answered: reasoning, and a box in the convention of the codec.
        box: The box in pixels, where the row gives it beside the answer in a way of its own; the answer may then have a
            place for it.

    Raises:
        DataError: If the convention is not said, or the answer holds no box or several, or another than `bbox`.
    """
    refuse_several_pictures(question, answer)
    image = images(name_of_picture(picture))
    asked, amodal = phrase_of(question)
    amodal = flag(row, "amodal") if "amodal" in row else amodal
    size = pixels(row) or _size_of(image)
    codec = _codec_of(row, box is None)
    if box is None:
        assert codec is not None
        box = _box_of(codec, answer, size, amodal=amodal)
        box = _exact(xyxy(row["bbox"]), box, codec, size) if row.get("bbox") is not None else box
    closed = answer.rfind("</think>")
    return Sample(
        id=identity(row, "id", name),
        image=image,
        phrase=text(row, "sent") if row.get("sent") is not None else asked,
        box=box,
        size=size,
        amodal=amodal,
        rationale=(answer[:closed].replace("<think>", "").strip() or None) if closed >= 0 else None,
        meta=_meta(row.get("meta")),
    )


def _meta(said: Any) -> dict[str, Any]:
    """The sample's own facts, which EGM writes as JSON in a text; of anything else none are taken."""
    if not isinstance(said, str):
        return {}
    try:
        facts = load_json(said.encode())
    except JsonError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _codec_of(row: Row, is_needed: bool) -> Codec | None:
    name = row.get(CODEC_KEY)
    if name is None:
        if is_needed:
            raise DataError(
                "does not say in whose convention its box is written: give codec in each row, such as "
                '"codec": "qwen3_vl", or for the whole file (--from-codec)'
            )
        return None
    try:
        return get_codec(name)
    except (ModelError, TypeError):
        raise DataError(f"codec {short(name)} is no convention that is known") from None


def _size_of(image: Path) -> tuple[int, int]:
    try:
        return read_picture_header(image)[0]
    except ImageError as error:
        raise DataError(f"says no width and height, and its picture does not either: {error}") from None


def _box_of(codec: Codec, answer: str, size: tuple[int, int], *, amodal: bool) -> Box:
    grounding = codec.parse(answer, size=size, amodal=amodal)
    if grounding.box is None:
        raise DataError(f"the answer holds no box in the convention of {codec.name} ({grounding.failure})")
    if len(grounding.boxes) > 1:
        raise DataError(f"the answer holds {len(grounding.boxes)} boxes: one is needed")
    return grounding.box


def _exact(said: Box, read: Box, codec: Codec, size: tuple[int, int]) -> Box:
    """The box as `bbox` says it, which the answer can only round."""
    scale = codec.scale(size, None)
    if whole_numbers(said, size, scale) != whole_numbers(read, size, scale):
        raise DataError(f"bbox {short(list(said))} is not the box of the answer, {short(list(read))}: keep one")
    return said
