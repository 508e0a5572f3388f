"""Parts of the page, written from values by templates that escape all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egm.pages.page import template_environment
from egm.web.answers import PastAnswer, ShownAnswer, ShownBox
from egm.web.pictures import WebPicture

if TYPE_CHECKING:
    from jinja2 import Environment

_MARGIN = 0.5  # an amodal box may leave the frame by so much of the longer side before it is cut off
_NOTE = "egm-tiny knows only SynthRef's drawn shapes: do not trust its boxes on anything else"


def fragment(template: str, **content: Any) -> str:
    """Write a part of the page; arguments as of `egm.pages.page.render`."""
    return _environment().get_template(template).render(**content)


def picture_view(name: str, picture: WebPicture, boxes: Sequence[ShownBox] = (), *, model: str = "") -> str:
    """The picture with boxes, and in words what is on it.

    Args:
        name: What the picture is asked for by.
        picture: The picture.
        boxes: The boxes, in pixels of the picture.
        model: Whose boxes they are.
    """
    width, height = picture.image.size
    reach = _MARGIN * max(width, height)
    left = max([0.0, *(-each.box.x1 for each in boxes)])
    top = max([0.0, *(-each.box.y1 for each in boxes)])
    right = max([0.0, *(each.box.x2 - width for each in boxes)])
    bottom = max([0.0, *(each.box.y2 - height for each in boxes)])
    left, top, right, bottom = (min(side, reach) for side in (left, top, right, bottom))
    view = (0.0 - left, 0.0 - top, width + left + right, height + top + bottom)
    return fragment(
        "picture.html.j2",
        name=name,
        size=(width, height),
        view=[round(value, 2) for value in view],
        boxes=boxes,
        letter=round(max(width, height) / 28, 2),
        alt=_alt(picture, boxes, model),
    )


def panel(model: str, answers: Sequence[ShownAnswer], *, name: str = "", stem: str = "answers", note: str = "") -> str:
    """What one model answers.

    Args:
        model: Its name.
        answers: The answers.
        name: What the files to take away are asked for by; none without it.
        stem: What they are called.
        note: What is to be known of the model.
    """
    return fragment("panel.html.j2", model=model, answers=answers, name=name, stem=stem, note=note)


def boxes_of(answers: Sequence[ShownAnswer]) -> list[ShownBox]:
    """All boxes of answers."""
    return [box for answer in answers for box in answer.boxes]


def note_of(model: str, picture: WebPicture) -> str:
    """What is to be known of a model that is asked about an upload."""
    return _NOTE if model == "egm-tiny" and picture.uploaded else ""


def stem_of(answer: PastAnswer) -> str:
    """What files of an answer are called."""
    words = re.findall(r"[A-Za-z0-9]+", f"{Path(answer.file).stem} {answer.model}")
    return "-".join(words)[:60] or "answers"


def _alt(picture: WebPicture, boxes: Sequence[ShownBox], model: str) -> str:
    if not boxes:
        return f"{picture.name}, without boxes" if model else picture.name
    said = "; ".join(f"phrase {each.number} at {each.title}" for each in boxes[:20])
    return f"{picture.name} with {'a box' if len(boxes) == 1 else f'{len(boxes)} boxes'} of {model}: {said}"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return template_environment(Path(__file__).parent)
