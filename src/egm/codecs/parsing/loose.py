"""Boxes out of text that is no strict JSON: lists after a box key, and numbers in plain brackets.

Every pattern here is possessive and every stretch of text is looked at a fixed number of times, so that time is linear
in the length whatever the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from egm.codecs.parsing.entries import Entry, Repair, read_numbers
from egm.codecs.parsing.strict import BOX_KEYS, KNOWN_KEYS

# An innermost bracket with something in it, closed or not.
_BRACKET = re.compile(r"([\[(])([^\[\](){}]++)([\])])?")
_KEY = re.compile(rf"(?<!\w)({'|'.join(sorted(KNOWN_KEYS, key=len, reverse=True))})\Z")
_KEY_LENGTH = 16  # characters, more than the longest key has
_KEY_WINDOW = 48
_NUMERIC = tuple("0123456789.-")
_QUOTES = "\"'\\"
_FILL = " \t\r\n\"'\\[("  # what may stand between a key's colon and the bracket that holds its numbers
_LABEL = re.compile(
    r"""[\s\])"'\\]*+,\s*+\\?+["']label\\?+["']\s*+:\s*+\\?+
    (?:"(?P<double>(?:[^"\\]|\\.)*+)"?+|'(?P<single>(?:[^'\\]|\\.)*+)'?+)""",
    re.DOTALL | re.VERBOSE,
)
_BEFORE_BRACKET = frozenset(":" + _FILL)  # the last character before a bracket that follows a key is one of these
_BARE = frozenset([Repair.BARE_LIST])
_PAIRED = frozenset([Repair.BARE_LIST, Repair.CORNER_PAIRS])
_CLOSERS = {"[": "]", "(": ")"}
FOREIGN = "foreign"
"""What `_key_before` calls the key of another family's box."""


def read_brackets(
    text: str, *, words: Sequence[tuple[int, int]] = (), keys: tuple[str, ...] = BOX_KEYS
) -> tuple[list[Entry], list[Entry]]:
    """Read every bracket that stands where a box should.

    Args:
        text: The answer.
        words: From where to where it quotes words, in order: lists in there, and without a key, are left out.
        keys: What the family calls a box, its own word first.

    Returns:
        Entries after a box key, and entries without one, each in order.
    """
    keyed: list[Entry] = []
    bare: list[Entry] = []
    passed_over = False
    quotes = iter(words)
    quote = next(quotes, None)
    corner_end = -1  # where an unpaired `(x, y)` ended
    label_end = 0  # a label may itself hold brackets, which are words
    for match in _BRACKET.finditer(text):
        opener, content, closer = match.groups()
        start, end = match.span()
        if start < label_end:
            continue
        while quote is not None and quote[1] <= start:
            quote = next(quotes, None)
        is_word = quote is not None and quote[0] <= start
        if closer is None and text[end : end + 1] == "}" and content.count(",") == 3:
            closer = "}"
        if closer is None:
            # Left open at the end, the text is cut off; left open before that, the list is broken off.
            if end < len(text) and content.lstrip()[:1] in _NUMERIC and not bare:
                bare.append(Entry(None))
            continue
        # Most brackets follow no key, which one character tells.
        key, nested = _key_before(text, start, keys) if text[start - 1 : start] in _BEFORE_BRACKET else (None, False)
        wrong = [Repair.WRONG_BRACKET] if closer != _CLOSERS[opener] else []
        if key in keys:
            entry = read_numbers(content)
            repairs = [Repair.BROKEN_JSON, *([Repair.BBOX_KEY] if key != keys[0] else []), *wrong]
            repairs += [Repair.NESTED_LIST] if nested else []
            label, label_end = _label_after(text, end)
            keyed.append(Entry(entry.numbers, label, entry.repairs.union(repairs)))
            continue
        if is_word or ("," not in content and " " not in content):
            continue
        entry = read_numbers(content)
        entry = entry.repaired(*wrong) if wrong else entry
        count = len(entry.numbers or ())
        if entry.numbers is None:
            # `[x1, y1, x2, y2]`: four of something, but no numbers.
            if content.count(",") == 3 and opener == "[":
                bare.append(entry)
        elif key is not None:
            passed_over = passed_over or (key == FOREIGN and count == 4)
            bare.append(Entry(None))
        elif count == 2 and opener == "(":
            if corner_end == start or (corner_end >= 0 and text[corner_end:start].strip() in ("", ",")):
                corners = (bare.pop().numbers or ()) + entry.numbers
                bare.append(Entry(corners, None, entry.repairs | _PAIRED if entry.repairs else _PAIRED))
                corner_end = -1
            else:
                bare.append(entry)
                corner_end = end
            continue
        elif count > 1:
            bare.append(Entry(entry.numbers, None, entry.repairs | _BARE))
        corner_end = -1
    return [entry.repaired(Repair.PASSED_OVER) for entry in keyed] if passed_over else keyed, bare


def read_corners(text: str, corners: tuple[str, ...]) -> list[Entry]:
    """Read every object of four keys, in their order, in text that is no strict JSON."""
    sides = r"\s{0,8}+,\s{0,8}+".join(
        rf"""["']{key}["']\s{{0,8}}+:\s{{0,8}}+([-+.0-9eE]{{1,32}}+)""" for key in corners
    )
    return [read_numbers(",".join(match.groups())).repaired(Repair.BROKEN_JSON) for match in re.finditer(sides, text)]


def _key_before(text: str, start: int, keys: tuple[str, ...]) -> tuple[str | None, bool]:
    """Find the key before a bracket, and tell whether the list is nested.

    Returns:
        One of `keys`, `FOREIGN`, "" for another key in quotes, or None for none; whether another bracket stands
        between.
    """
    window = text[max(0, start - _KEY_WINDOW) : start]
    head = window.rstrip(_FILL)
    if head[-1:] != ":":
        return None, False
    name = head[:-1].rstrip()
    bare = name.rstrip(_QUOTES)
    if match := _KEY.search(bare, max(0, len(bare) - _KEY_LENGTH)):
        if match.group(1) in keys:
            return match.group(1), "[" in window[len(head) :]
        if bare != name:
            return FOREIGN, False
    return ("" if bare != name else None), False


def _label_after(text: str, end: int) -> tuple[str | None, int]:
    """Read the label beside a box, and say where it ends: at its quote, or, cut off, at the end of the text."""
    match = _LABEL.match(text, end)
    if not match:
        return None, end
    if match["double"] is None:
        return match["single"], match.end()
    try:
        return str(json.loads(f'"{match["double"]}"', strict=False)), match.end()
    except ValueError:
        return match["double"], match.end()
