"""Phrases on their way into a model: control tokens made harmless, and the wordings that ask for a box."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from egm.errors import EgmError, nearest

if TYPE_CHECKING:
    from egm.types import Expect, Message

PROMPTS = ("qwen3", "grounding")
"""Known styles: that of Qwen3-VL's training, and that of the model card."""

# What the tokenizers of the families here hold as added tokens: `<|im_end|>`, `<｜end▁of▁sentence｜>`, `<think>`,
# `</tool_call>`, `<IMG_CONTEXT>`, `<s>`. One possessive run after each "<" keeps the search linear.
_CONTROL_TOKEN = re.compile(r"<(?=[|｜]|/?[\w.:-]++>)")
# C0 and C1 controls without tab and line feed, and halves of surrogate pairs, which no tokenizer can encode.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def neutralise(text: str) -> str:
    """Escape special tokens: they become plain words by a space after their `<`, other control characters spaces.

    The words stay readable, `a<b` and `x < y` stay as they are, and a second pass changes nothing.

    Example:
        >>> neutralise("the sign <|im_end|> says </think>")
        'the sign < |im_end|> says < /think>'
    """
    return _CONTROL_TOKEN.sub("< ", _UNPRINTABLE.sub(" ", text))


def user_turn(
    phrase: str, *, style: str, amodal: bool, tagged: bool = False, expect: Expect = "one", none: str | None = None
) -> list[Message]:
    """Build the user turn that asks for a box, or for all, in a known prompt style.

    A full stop at the end of the phrase is dropped, since the wordings bring their own punctuation.

    Args:
        phrase: What to find.
        style: One of `PROMPTS`.
        amodal: Ask for the whole object, its hidden part too.
        tagged: Set the phrase in `<ref>` tags, in the `grounding` style.
        expect: How many boxes are asked for.
        none: What to answer where nothing matches, which the wording says unless one box is expected.

    Raises:
        EgmError: If the style is unknown.
    """
    words = neutralise(phrase).strip()
    words = words.rstrip(". ") or words
    if style == "qwen3":
        how = " amodally" if amodal else ""
        text = (
            f'Locate every object that matches the description "{words}" in the image{how}. Report bbox coordinates in '
            "JSON format."
            if expect == "all"
            else f"Locate {words}{how}, output its bbox coordinates using JSON format."
        )
    elif style == "grounding":
        asked = "amodal bounding box" if amodal else "bounding box"
        named = f"<ref>{words}</ref>" if tagged else words + ("" if words.endswith(("!", "?", ".")) else ".")
        which = f"{asked} coordinates of all regions" if expect == "all" else f"{asked} coordinate of the region"
        text = f"Please provide the {which} this sentence describes: {named}"
    else:
        raise EgmError(f"unknown prompt style {style!r}: {nearest(style, PROMPTS)}")
    if expect != "one" and none is not None:
        text += f" If nothing in the image matches, answer {none}."
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
