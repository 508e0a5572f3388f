"""InternVL: `<ref>…</ref><box>[[x1, y1, x2, y2]]</box>` on the 0-1000 scale."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from egm.codecs.base import Codec
from egm.codecs.parsing.forms import BOX_START_TAGS, BOX_TAGS, Form, Keyed
from egm.codecs.registry import register_codec

_TAG = re.compile(r"</?(?:ref|box)>")
_STRIPPED = re.compile(r"([^\[\]<>\n]*+)(\[\[[^\[\]<>]*+\]\])\s*+")
"""What is left of an answer without its tags: the phrase, and the box right behind it."""


@register_codec
@dataclass(frozen=True, slots=True)
class InternVL(Codec):
    """Codec of InternVL. Where a decoder has stripped the tags from a text, bare lists are read.

    Example:
        >>> InternVL().parse("<ref>the man</ref><box>[[100, 200, 300, 400]]</box>", size=(640, 480)).boxes[0].label
        'the man'
    """

    name: ClassVar[str] = "internvl"
    model_types: ClassVar[tuple[str, ...]] = ("internvl",)
    prompts: ClassVar[tuple[str, ...]] = ("grounding", "qwen3")
    form: ClassVar[Form] = BOX_TAGS
    other_forms: ClassVar[tuple[Form, ...]] = (Keyed(), BOX_START_TAGS)

    def restore_tags(self, text: str) -> str:
        """Write back what stripping took from an answer that holds one box and nothing else; see `Codec.restore_tags`.

        Example:
            >>> InternVL().restore_tags("the man[[100, 200, 300, 400]]")
            '<ref>the man</ref><box>[[100, 200, 300, 400]]</box>'
        """
        if _TAG.search(text):
            return text
        before, end, answer = text.rpartition("</think>")
        start = len(answer) - len(answer.lstrip())
        if (found := _STRIPPED.fullmatch(answer, start)) is None:
            return text
        return f"{before}{end}{answer[:start]}<ref>{found[1].strip()}</ref><box>{found[2]}</box>"
