"""Families that write a box as four location tokens in a row, each the bin of a coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from egm.codecs.base import Codec
from egm.codecs.parsing.forms import Form, Tokens
from egm.codecs.parsing.reading import Scale
from egm.codecs.registry import register_codec


@register_codec
@dataclass(frozen=True, slots=True)
class PaliGemma(Codec):
    """Codec of PaliGemma: `<locY1><locX1><locY2><locX2> label ; …`, 1024 bins.

    Example:
        >>> PaliGemma().parse("<loc0256><loc0000><loc0512><loc0128> cup", size=(1024, 1024)).box
        Box(x1=0.0, y1=256.0, x2=128.0, y2=512.0)
    """

    name: ClassVar[str] = "paligemma"
    prompts: ClassVar[tuple[str, ...]] = ("paligemma",)
    form: ClassVar[Form] = Tokens("<loc{}>", label_first=False, between=" ; ", digits=4)
    plain_lists: ClassVar[bool] = False
    units: ClassVar[Scale] = Scale((1024, 1024), y_first=True, bins=True)
    proven: ClassVar[bool] = True


@register_codec
@dataclass(frozen=True, slots=True)
class Florence2(Codec):
    """Codec of Florence-2: `label<loc_x1><loc_y1><loc_x2><loc_y2>`, 1000 bins, each of which stands for its middle.

    Example:
        >>> Florence2().parse("car<loc_52><loc_334><loc_932><loc_774>", size=(1000, 1000)).box
        Box(x1=52.5, y1=334.5, x2=932.5, y2=774.5)
    """

    name: ClassVar[str] = "florence2"
    prompts: ClassVar[tuple[str, ...]] = ("florence2",)
    form: ClassVar[Form] = Tokens("<loc_{}>", label_first=True)
    plain_lists: ClassVar[bool] = False
    units: ClassVar[Scale] = Scale(bins=True, middle=True)
    proven: ClassVar[bool] = True
