"""What stands in an answer and is none: other turns, tool calls, thoughts in tags, the phrase's own numbers.

Every pattern is possessive or bounded, and every stretch of text is looked at a fixed number of times.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from egm.codecs.parsing.entries import Entry

_END_OF_TURN = ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<｜end▁of▁sentence｜>", "</s>")
# A turn whose tokens the decoder stripped leaves its role on a line.
_OTHER_TURN = re.compile(r"^[ \t]*+(?:user|system|tool)[ \t]*+$", re.MULTILINE)
_OWN_TURN = re.compile(r"\s*+assistant[ \t]*+\n")
_BLOCKS = ("tool_call", "tool_response", "function_call", "thinking", "thought", "reasoning", "analysis", "scratchpad")
_OPENED = re.compile(rf"<({'|'.join(_BLOCKS)})>")
_CALL = re.compile(
    r"""\{\s*+"name"\s*+:\s*+"[^"]*+"\s*+,\s*+"(?:arguments|parameters)"\s*+:\s*+\{[^{}]*+\}?+\s*+\}?+"""
)
_QUOTE = re.compile(r'"[^"\n]*+"')
_LETTER = re.compile(r"[^\W\d_]")


def answer_of(text: str) -> str:
    """Cut an answer out of what a model wrote around it.

    Only its own turn counts; tool calls and thoughts in tags go. Of `<answer>…</answer>` wrappers the last is read
    through, from its own opening: one that stands inside it is a word.
    """
    for token in _END_OF_TURN:
        text = text.partition(token)[0]
    if own := _OWN_TURN.match(text):
        text = text[own.end() :]
    if other := _OTHER_TURN.search(text):
        text = text[: other.start()]
    text = _CALL.sub("\n", _without_blocks(text))
    wrapped = next((part for part in reversed(text.split("</answer>")) if "<answer>" in part), None)
    return (text.partition("</answer>")[0] if wrapped is None else wrapped.partition("<answer>")[2]).strip()


def without_echo(entries: list[Entry], phrase_numbers: Collection[tuple[float, ...]]) -> list[Entry]:
    """Leave out entries that say the phrase's own numbers: the question said again, and no answer to it."""
    return [entry for entry in entries if entry.numbers not in phrase_numbers] if phrase_numbers else entries


def quoted_words(text: str) -> list[tuple[int, int]]:
    """Find the quotes in prose that hold words: a list in one is part of them."""
    return [match.span() for match in _QUOTE.finditer(text) if _LETTER.search(match.group())]


def _without_blocks(text: str) -> str:
    kept, position = [], 0
    while opened := _OPENED.search(text, position):
        kept.append(text[position : opened.start()])
        closer = f"</{opened[1]}>"
        closed = text.find(closer, opened.end())
        # What is never closed lasts to the end.
        position = len(text) if closed < 0 else closed + len(closer)
    return "\n".join([*kept, text[position:]]) if kept else text
