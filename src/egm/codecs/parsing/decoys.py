"""What stands in an answer and is none: other turns, tool calls, thoughts, struck-out lists, the phrase's own numbers.

Every pattern is possessive or bounded, and every stretch of text is looked at a fixed number of times.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from egm.codecs.parsing.entries import Entry

_END_OF_TURN = (
    *("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<｜end▁of▁sentence｜>", "</s>"),
    *("<end_of_turn>", "<start_of_turn>", "<|return|>", "<|user|>", "<|observation|>"),
)
_BEGUN = re.compile(r"\s*+(?:</s>\s*+)?+<s>\s*+(?:<s>\s*+)*+")  # how a text of an encoder-decoder begins
# A turn whose tokens the decoder stripped leaves its role on a line.
_OTHER_TURN = re.compile(r"^[ \t]*+(?:user|system|tool)[ \t]*+$", re.MULTILINE)
_TURN = re.compile(
    r"^[ \t#*]{0,8}+(?:(?:human|user|system|tool)|(?P<own>assistant|gpt))[ \t*]{0,8}+(?::[ \t*]{0,8}+|$)",
    re.MULTILINE | re.IGNORECASE,
)
_WORDS_IN_TAGS = (
    *("tool_call", "tool_response", "function_call", "thinking", "thought", "thoughts", "reasoning", "analysis"),
    *("scratchpad", "reflection", "rationale", "del", "strike"),
)
_THOUGHTS: dict[str, str] = {
    r"<seed:think>": r"</seed:think>",
    r"<longcat_think>": r"</longcat_think>",
    r"◁think▷": r"◁/think▷",
    r"\[think\]": r"\[/think\]",
    r"<\|start_thinking\|>": r"<\|end_thinking\|>",
    r"<\|begin_of_thought\|>": r"<\|end_of_thought\|>",
    r"<\|channel\|>(?:analysis|commentary)": r"<\|channel\|>final(?:<\|message\|>)?+",
}
"""Thoughts as families mark them, from where to where, with what is no word: Seed, LongCat, Kimi, Magistral, Cohere,
Sky-T1, gpt-oss."""
_STRIPPED_THOUGHTS = re.compile(r"\s*+analysis(?=[A-Z])")  # gpt-oss's, whose tokens the decoder stripped
_BLOCKS = _THOUGHTS | {rf"<{name}>": rf"</{name}>" for name in _WORDS_IN_TAGS} | {"<!--": "-->"}
_OPENED = re.compile(rf"(?=[<◁\[])(?:{'|'.join(f'({opener})' for opener in _BLOCKS)})", re.IGNORECASE)
_CLOSED = [re.compile(closer, re.IGNORECASE) for closer in _BLOCKS.values()]
# Where the template has opened the thoughts, the text only closes them.
_LEFT_CLOSED = re.compile(rf"(?=[<◁\[])(?:{'|'.join(_THOUGHTS.values())})", re.IGNORECASE)
_STRUCK = re.compile(r"~~(?!\s)[^~\n]{1,400}+(?<!\s)~~")
_DENIED = re.compile(
    r"\b(?:not|rather\s++than|instead\s++of)\s++(?:at\s++|in\s++)?+[\[(][-+\d.,\s]{1,80}+[\])]", re.IGNORECASE
)
_LIST = re.compile(r"[\[(]\s{0,8}+[-+.0-9]")
_CALL = re.compile(
    r"""\{\s*+"name"\s*+:\s*+"[^"]*+"\s*+,\s*+"(?:arguments|parameters)"\s*+:\s*+\{[^{}]*+\}?+\s*+\}?+"""
)
_QUOTE = re.compile(r'"[^"\n]*+"')
_LETTER = re.compile(r"[^\W\d_]")


def answer_of(text: str) -> str:
    """Cut an answer out of what a model wrote around it.

    Only its own turn counts; tool calls, thoughts in tags, comments, and lists that are struck out or denied go. Of
    `<answer>…</answer>` wrappers the last is read through, from its own opening: one that stands inside it is a word.
    """
    if begun := _BEGUN.match(text):
        text = text[begun.end() :]
    for token in _END_OF_TURN:
        text = text.partition(token)[0]
    text = _CALL.sub("\n", _without_blocks(_own_turn(text)))
    kept = _STRUCK.sub(" ", text) if "~~" in text else text
    text = _DENIED.sub(" ", kept if _LIST.search(kept) else text)  # two tildes may be an ornament
    wrapped = next((part for part in reversed(text.split("</answer>")) if "<answer>" in part), None)
    return (text.partition("</answer>")[0] if wrapped is None else wrapped.partition("<answer>")[2]).strip()


def without_echo(entries: list[Entry], phrase_numbers: Collection[tuple[float, ...]]) -> list[Entry]:
    """Leave out entries that say the phrase's own numbers: the question said again, and no answer to it."""
    return [entry for entry in entries if entry.numbers not in phrase_numbers] if phrase_numbers else entries


def quoted_words(text: str) -> list[tuple[int, int]]:
    """Find the quotes in prose that hold words: a list in one is part of them."""
    return [match.span() for match in _QUOTE.finditer(text) if _LETTER.search(match.group())]


def _own_turn(text: str) -> str:
    """Take the model's first turn out of a text that goes on for others, or begins with what was said before.

    A role before a colon counts only where the model's own stands so somewhere: "Human: [1, 2, 3, 4]" may be a label.
    """
    turns = list(_TURN.finditer(text))
    if own := next((turn for turn in turns if turn["own"]), None):
        if not text[: turns[0].start()].strip():
            text = text[own.end() :]
            turns = list(_TURN.finditer(text))
        if other := next((turn for turn in turns if not turn["own"]), None):
            text = text[: other.start()]
    if other := _OTHER_TURN.search(text):
        text = text[: other.start()]
    return text


def _without_blocks(text: str) -> str:
    if _STRIPPED_THOUGHTS.match(text):
        text = text.partition("assistantfinal")[2]
    kept, position = [], 0
    while opened := _OPENED.search(text, position):
        kept.append(text[position : opened.start()])
        closed = _CLOSED[(opened.lastindex or 1) - 1].search(text, opened.end())
        # What is never closed lasts to the end.
        position = len(text) if closed is None else closed.end()
    text = "\n".join([*kept, text[position:]]) if kept else text
    return _LEFT_CLOSED.split(text)[-1]
