"""Families that write a box between tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from egm.codecs.base import Codec
from egm.codecs.parsing.forms import BOX_START_TAGS, BOX_TAGS, COORDINATE, PATCH, Form, Keyed, Tagged
from egm.codecs.parsing.reading import Scale
from egm.codecs.registry import register_codec

_THOUSAND = Scale((999, 999))
"""0-999: 999 is the edge of the picture."""
_TOKENS = "<{}><{}><{}><{}>"
_OBJECT_REF = ("<|object_ref_start|>", "<|object_ref_end|>")


@register_codec
@dataclass(frozen=True, slots=True)
class QwenVL(Codec):
    """Codec of Qwen-VL, the first: `<ref>…</ref><box>(x1,y1),(x2,y2)</box>` on 0-1000.

    Example:
        >>> QwenVL().parse("<ref>the cup</ref><box>(100,200),(300,400)</box>", size=(640, 480)).box
        Box(x1=64.0, y1=96.0, x2=192.0, y2=192.0)
    """

    name: ClassVar[str] = "qwen_vl"
    prompts: ClassVar[tuple[str, ...]] = ("qwen_vl", "grounding")
    form: ClassVar[Form] = Tagged(("<box>", "</box>"), ("<ref>", "</ref>"), "({},{}),({},{})")
    proven: ClassVar[bool] = True


@register_codec
@dataclass(frozen=True, slots=True)
class Qwen2VL(Codec):
    """Codec of Qwen2-VL: `<|box_start|>(x1,y1),(x2,y2)<|box_end|>` on 0-1000.

    Where a decoder has stripped the special tokens, two corners in parentheses are left, which are read.
    """

    name: ClassVar[str] = "qwen2_vl"
    prompts: ClassVar[tuple[str, ...]] = ("grounding", "qwen3")
    form: ClassVar[Form] = BOX_START_TAGS
    other_forms: ClassVar[tuple[Form, ...]] = (BOX_TAGS,)


@register_codec
@dataclass(frozen=True, slots=True)
class GLMV(Codec):
    """Codec of GLM-4.1V, 4.5V and 4.6V: `<|begin_of_box|>[[x1,y1,x2,y2]]<|end_of_box|>` on 0-1000.

    Brackets vary, JSON may stand between the tags or, where it is asked for, in their place.
    """

    name: ClassVar[str] = "glm_v"
    prompts: ClassVar[tuple[str, ...]] = ("glm_v", "qwen3")
    form: ClassVar[Form] = Tagged(
        ("<|begin_of_box|>", "<|end_of_box|>"), None, "[[{},{},{},{}]]", holds_json=True, several="together"
    )
    other_forms: ClassVar[tuple[Form, ...]] = (Keyed(),)
    proven: ClassVar[bool] = True


@register_codec
@dataclass(frozen=True, slots=True)
class DeepSeekVL2(Codec):
    """Codec of DeepSeek-VL2 and DeepSeek-OCR: `<|ref|>…<|/ref|><|det|>[[x1, y1, x2, y2]]<|/det|>` on 0-999."""

    name: ClassVar[str] = "deepseek_vl2"
    prompts: ClassVar[tuple[str, ...]] = ("deepseek_vl2",)
    form: ClassVar[Form] = Tagged(("<|det|>", "<|/det|>"), ("<|ref|>", "<|/ref|>"), several="together")
    units: ClassVar[Scale] = _THOUSAND
    proven: ClassVar[bool] = True


@register_codec
@dataclass(frozen=True, slots=True)
class SeedVL(Codec):
    """Codec of Seed1.5-VL and Doubao: `<bbox>x1 y1 x2 y2</bbox>` on 0-999."""

    name: ClassVar[str] = "seed_vl"
    prompts: ClassVar[tuple[str, ...]] = ("seed_vl",)
    form: ClassVar[Form] = Tagged(("<bbox>", "</bbox>"), None, "{} {} {} {}")
    plain_lists: ClassVar[bool] = False
    units: ClassVar[Scale] = Scale(bins=True)  # its cookbook divides by 1000


@register_codec
@dataclass(frozen=True, slots=True)
class RexOmni(Codec):
    """Codec of Rex-Omni: four tokens a box, `<|box_start|><x1><y1><x2><y2>,…<|box_end|>`, on 0-999.

    Example:
        >>> text = "<|object_ref_start|>sofa<|object_ref_end|><|box_start|><0><333><999><666><|box_end|>"
        >>> RexOmni().parse(text, size=(999, 999)).box
        Box(x1=0.0, y1=333.0, x2=999.0, y2=666.0)
    """

    name: ClassVar[str] = "rex_omni"
    prompts: ClassVar[tuple[str, ...]] = ("rex_omni",)
    form: ClassVar[Form] = Tagged(
        ("<|box_start|>", "<|box_end|>"), _OBJECT_REF, _TOKENS, COORDINATE, several="together"
    )
    plain_lists: ClassVar[bool] = False
    units: ClassVar[Scale] = _THOUSAND
    none: ClassVar[str | None] = "<|box_start|>None<|box_end|>"
    proven: ClassVar[bool] = True


@register_codec
@dataclass(frozen=True, slots=True)
class GroundAnything(RexOmni):
    """Codec of GroundAnything, which writes as Rex-Omni does and is asked in words of its own."""

    name: ClassVar[str] = "ground_anything"
    prompts: ClassVar[tuple[str, ...]] = ("ground_anything",)
    proven: ClassVar[bool] = False


@register_codec
@dataclass(frozen=True, slots=True)
class LocateAnything(Codec):
    """Codec of LocateAnything: `<ref>…</ref><box><x1><y1><x2><y2></box>` on 0-1000."""

    name: ClassVar[str] = "locate_anything"
    prompts: ClassVar[tuple[str, ...]] = ("locate_anything",)
    form: ClassVar[Form] = Tagged(("<box>", "</box>"), ("<ref>", "</ref>"), _TOKENS, COORDINATE, several="each")
    plain_lists: ClassVar[bool] = False
    none: ClassVar[str | None] = "<box>none</box>"
    proven: ClassVar[bool] = True


@register_codec
@dataclass(frozen=True, slots=True)
class Kosmos2(Codec):
    """Codec of Kosmos-2: a token for the patch of each of two corners, on a grid of 32 x 32.

    Example:
        >>> text = "<phrase> a hat</phrase><object><patch_index_0048><patch_index_0250></object>"
        >>> Kosmos2().parse(text, size=(320, 320)).box
        Box(x1=165.0, y1=15.0, x2=265.0, y2=75.0)
    """

    name: ClassVar[str] = "kosmos2"
    prompts: ClassVar[tuple[str, ...]] = ("kosmos2",)
    form: ClassVar[Form] = Tagged(
        ("<object>", "</object>"),
        ("<phrase>", "</phrase>"),
        "<patch_index_{}><patch_index_{}>",
        PATCH,
        between="</delimiter_of_multi_objects/>",
        several="together",
    )
    plain_lists: ClassVar[bool] = False
    units: ClassVar[Scale] = Scale((32, 32))
    proven: ClassVar[bool] = True
