"""Hosted families that answer in JSON whose key says scale and order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from egm.codecs.base import Codec
from egm.codecs.parsing.forms import Form, Keyed
from egm.codecs.parsing.reading import Scale
from egm.codecs.registry import register_codec


@register_codec
@dataclass(frozen=True, slots=True)
class Gemini(Codec):
    """Codec of Gemini: JSON with `box_2d`, `[y1, x1, y2, x2]` on 0-1000.

    Example:
        >>> Gemini().parse('[{"box_2d": [200, 100, 400, 300], "label": "the cup"}]', size=(640, 480)).box
        Box(x1=64.0, y1=96.0, x2=192.0, y2=192.0)
    """

    name: ClassVar[str] = "gemini"
    prompts: ClassVar[tuple[str, ...]] = ("gemini",)
    form: ClassVar[Form] = Keyed(("box_2d",), between=",\n\t")
    plain_lists: ClassVar[bool] = False
    units: ClassVar[Scale] = Scale(y_first=True)
    none: ClassVar[str | None] = "[]"
    proven: ClassVar[bool] = True


@register_codec
@dataclass(frozen=True, slots=True)
class Moondream(Codec):
    """Codec of Moondream: JSON with `x_min`, `y_min`, `x_max` and `y_max` as shares of the picture.

    Example:
        >>> text = '{"objects": [{"x_min": 0.1, "y_min": 0.2, "x_max": 0.3, "y_max": 0.4}]}'
        >>> Moondream().parse(text, size=(1000, 1000)).box
        Box(x1=100.0, y1=200.0, x2=300.0, y2=400.0)
    """

    name: ClassVar[str] = "moondream"
    prompts: ClassVar[tuple[str, ...]] = ("moondream",)
    form: ClassVar[Form] = Keyed(
        (), ("x_min", "y_min", "x_max", "y_max"), head='{"objects": [', tail="]}", labelled=False, between=", "
    )
    plain_lists: ClassVar[bool] = False
    units: ClassVar[Scale] = Scale((1, 1), digits=4)
    none: ClassVar[str | None] = '{"objects": []}'
