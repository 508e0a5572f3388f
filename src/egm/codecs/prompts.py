"""Phrases on their way into a model: control tokens made harmless, and the wordings that ask for a box."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from egm.errors import EgmError, nearest

if TYPE_CHECKING:
    from egm.types import Expect, Message

WORDINGS: Final = {
    "qwen3": "Locate {phrase}{amodally}, output its bbox coordinates using JSON format.",
    "grounding": (
        "Please provide the {amodal}bounding box coordinate of the region this sentence describes: {sentence}"
    ),
    "qwen_vl": "<ref>{phrase}{amodally}</ref>",
    "glm_v": "Help me to locate {phrase}{amodally} in the image and give me its bounding boxes.",
    "gemini": (
        "Detect {phrase}{amodally}. The box_2d should be [ymin, xmin, ymax, xmax] normalized to 0-1000. "
        "Answer as a JSON list of objects with box_2d and label."
    ),
    "paligemma": "detect {phrase}{amodally}",
    "florence2": "<CAPTION_TO_PHRASE_GROUNDING>{phrase}{amodally}",
    "kosmos2": "<grounding><phrase> {phrase}{amodally}</phrase>",
    "deepseek_vl2": "<|ref|>{phrase}{amodally}<|/ref|>.",
    "seed_vl": "Locate {phrase}{amodally}, output its bounding box as <bbox>x1 y1 x2 y2</bbox>.",
    "rex_omni": "Detect {phrase}{amodally}.",
    "locate_anything": "Locate a single instance that matches the following description: {phrase}{amodally}.",
    "ground_anything": "Locate the target referred to by the following description: {phrase}{amodally}.",
    "moondream": "detect: {phrase}{amodally}",
}
"""How a box is asked for, by style: that of Qwen3-VL's training, that of the model card, and families' own."""

ALL_WORDINGS: Final = {
    "qwen3": (
        'Locate every object that matches the description "{phrase}" in the image{amodally}. Report bbox coordinates '
        "in JSON format."
    ),
    "grounding": (
        "Please provide the {amodal}bounding box coordinates of all regions this sentence describes: {sentence}"
    ),
    "glm_v": (
        "Please pinpoint the bounding box [[x1,y1,x2,y2], …] in the image as per the given description. {phrase}"
        "{amodally}"
    ),
    "gemini": (
        'Detect everything that matches the description "{phrase}"{amodally}. The box_2d should be [ymin, xmin, ymax, '
        "xmax] normalized to 0-1000. Answer as a JSON list of objects with box_2d and label."
    ),
    "deepseek_vl2": "Locate <|ref|>{phrase}{amodally}<|/ref|> in the given image.",
    "locate_anything": "Locate all the instances that match the following description: {phrase}{amodally}.",
    "ground_anything": "Locate all the instances that match the following categories: {phrase}{amodally}.",
    **{style: WORDINGS[style] for style in ("paligemma", "florence2", "kosmos2", "rex_omni", "moondream")},
}
"""How all boxes are asked for, by the same styles: as their authors do, some of them in the words that ask for one.
Those of qwen3, grounding and gemini are EGM's own."""

_FREE = frozenset(["qwen3", "grounding", "gemini"])
"""Styles in words of any model's: these say what to answer where nothing matches. The others are what a family was
trained with, which knows its own word for that."""

PROMPTS = tuple(WORDINGS)
"""Known styles."""

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
    phrase: str,
    *,
    style: str,
    amodal: bool,
    tags: tuple[str, str] | None = None,
    expect: Expect = "one",
    none: str | None = None,
) -> list[Message]:
    """Build the user turn that asks for a box, or for all, in a known prompt style.

    A full stop at the end of the phrase is dropped, since the wordings bring their own punctuation.

    Args:
        phrase: What to find.
        style: One of `PROMPTS`.
        amodal: Ask for the whole object, its hidden part too.
        tags: What the family sets a phrase in; the style `grounding` does too.
        expect: How many boxes are asked for.
        none: What to answer where nothing matches, which free wordings say unless one box is expected.

    Raises:
        EgmError: If the style is unknown.
    """
    words = neutralise(phrase).strip()
    words = words.rstrip(". ") or words
    wordings = ALL_WORDINGS if expect == "all" else WORDINGS
    if style not in wordings:
        raise EgmError(f"unknown prompt style {style!r}: {nearest(style, tuple(wordings))}")
    plain = words + ("" if words.endswith(("!", "?", ".")) else ".")
    text = wordings[style].format(
        phrase=words,
        sentence=plain if tags is None else f"{tags[0]}{words}{tags[1]}",
        amodal="amodal " if amodal else "",
        amodally=" amodally" if amodal else "",
    )
    if expect != "one" and none is not None and style in _FREE:
        text += f" If nothing in the image matches, answer {none}."
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
