"""Boxes out of text that is no strict JSON: lists after a box key, tags, and, last, numbers in plain brackets.

Every pattern here is possessive and every stretch of text is looked at a fixed number of times, so that time is linear
in the length whatever the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from egm.codecs.parsing.entries import Entry, Repair, read_numbers
from egm.codecs.parsing.strict import BOX_KEYS, coordinates, load_list

# An innermost bracket with something in it, closed or not.
_BRACKET = re.compile(r"([\[(])([^\[\](){}]++)([\])])?")
_KEY = re.compile(r"(?<!\w)(bbox_2d|bbox|bounding_box)\Z")
_FOREIGN_KEY = re.compile(r"(?<!\w)(?:box_2d|box|boundingBox|bbox_normalized|box_coordinates)\Z")
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
_TAGS = (
    ("<box>", "</box>", "<ref>", "</ref>"),
    ("<|box_start|>", "<|box_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
)
_BEFORE_BRACKET = frozenset(":" + _FILL)  # the last character before a bracket that follows a key is one of these
_USUAL_IN_TAGS = frozenset([Repair.BARE_LIST, Repair.NESTED_LIST])  # tags name what is in them, so no repair is noted
_BARE = frozenset([Repair.BARE_LIST])
_PAIRED = frozenset([Repair.BARE_LIST, Repair.CORNER_PAIRS])
_CLOSERS = {"[": "]", "(": ")"}
FOREIGN = "box_2d"
"""What `_key_before` calls the key of another family's box."""
_HALF_PAIR = re.compile(r"[\s+-]*+[0-9][\s0-9.,+-]*+\Z")


def read_brackets(text: str, *, words: Sequence[tuple[int, int]] = ()) -> tuple[list[Entry], list[Entry]]:
    """Read every bracket that stands where a box should.

    Args:
        text: The answer.
        words: From where to where it quotes words, in order: lists in there, and without a key, are left out.

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
        key, nested = _key_before(text, start) if text[start - 1 : start] in _BEFORE_BRACKET else (None, False)
        wrong = [Repair.WRONG_BRACKET] if closer != _CLOSERS[opener] else []
        if key in BOX_KEYS:
            entry = read_numbers(content)
            repairs = [Repair.BROKEN_JSON, *([Repair.BBOX_KEY] if key != BOX_KEYS[0] else []), *wrong]
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


def read_tags(answer: str) -> list[Entry]:
    """Read every `<box>…</box>` and `<|box_start|>…<|box_end|>`, with the reference that stands before it as label."""
    return [entry for tags in _TAGS for entry in _tagged(answer, *tags)]


def ends_inside_box(answer: str) -> bool:
    """Tell whether an answer opens a list, an object or a box that it never closes."""
    if any(answer.count(opener) > answer.count(closer) for opener, closer in ("[]", "{}")):
        return True
    if any(answer.count(opener) > answer.count(closer) for opener, closer, *_ in _TAGS):
        return True
    opened = answer.rfind("(")
    return opened >= 0 and _HALF_PAIR.match(answer, opened + 1) is not None


def _tagged(answer: str, opener: str, closer: str, ref_opener: str, ref_closer: str) -> Iterator[Entry]:
    position, last = 0, answer.rfind(opener)
    ref_end = -1  # where the first reference that ends after `position` does; looked for once, not once a box
    while (opened := answer.find(opener, position)) >= 0:
        # A box's tag inside a reference is a word of the phrase.
        named = answer.find(ref_opener, position, opened)
        if 0 <= ref_end < named or (ref_end < 0 <= named):
            closed_ref = answer.find(ref_closer, named)
            ref_end = closed_ref if closed_ref >= 0 else len(answer)
        if 0 <= named < opened < ref_end <= last:
            opened = answer.find(opener, ref_end)
        before = answer[position:opened].rstrip()
        label = None
        named = before.rfind(ref_opener)
        if named >= 0 and before.endswith(ref_closer):
            label = before[named + len(ref_opener) : -len(ref_closer)].strip()
        closed = answer.find(closer, opened)
        content = answer[opened + len(opener) : closed if closed >= 0 else len(answer)]
        # A box that is opened anew before it closes was broken off: the last one counts.
        content = content[content.rfind(opener) + len(opener) :] if opener in content else content
        for entry in _content(content, closed=closed >= 0):
            yield Entry(entry.numbers, label, entry.repairs - _USUAL_IN_TAGS)
        if closed < 0:
            return
        position = closed + len(closer)


def _content(content: str, *, closed: bool) -> list[Entry]:
    if value := load_list(content) if "[" in content else None:
        return coordinates(value)
    _, bare = read_brackets(content)
    if bare or not closed:
        return bare
    return [read_numbers(content)]


def _key_before(text: str, start: int) -> tuple[str | None, bool]:
    """Find the key before a bracket, and tell whether the list is nested.

    Returns:
        A box key, `FOREIGN`, "" for another key in quotes, or None for no key; whether another bracket stands between.
    """
    window = text[max(0, start - _KEY_WINDOW) : start]
    head = window.rstrip(_FILL)
    if head[-1:] != ":":
        return None, False
    name = head[:-1].rstrip()
    bare = name.rstrip(_QUOTES)
    if match := _KEY.search(bare, max(0, len(bare) - _KEY_LENGTH)):
        return match.group(1), "[" in window[len(head) :]
    if bare != name and _FOREIGN_KEY.search(bare, max(0, len(bare) - _KEY_LENGTH)):
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
