"""Boxes out of strict JSON: the whole answer, or what stands inside its code fences."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from egm.codecs.parsing.entries import Entry, Repair, read_number, read_numbers

BOX_KEYS = ("bbox_2d", "bbox", "bounding_box")
KNOWN_KEYS = frozenset((*BOX_KEYS, "box_2d", "box", "boundingBox", "bbox_normalized", "box_coordinates"))
"""Keys of all families' boxes. Those that are not a family's own may mean other orders or scales: never read."""
_THOUGHTS = frozenset(("analysis", "explanation", "rationale", "reasoning", "think", "thinking", "thought", "thoughts"))
_OTHERS = frozenset(("discarded", "distractors", "excluded", "negatives", "rejected"))
"""Keys of what the answer is not."""
_NONE = frozenset(("", "none", "null", "n/a", "na", "nil", "not found", "not visible", "not present"))
_TAILS = ("}]\n```", "}]", "}\n```", "}")
_NOT_JSON = object()


class _Object(list[tuple[str, Any]]):
    """A JSON object as pairs, so that no repeated key is lost."""


def read_json(answer: str, keys: tuple[str, ...] = BOX_KEYS, corners: tuple[str, ...] = ()) -> list[Entry] | None:
    """Read every entry of a strict JSON answer.

    Args:
        answer: The answer.
        keys: What the family calls a box, its own word first; the others count as a repair.
        corners: The keys of an object that is a box by itself, such as `x_min`, in the order of its numbers.

    Returns:
        Entries in order; an empty list if the JSON holds none; None if the answer is not strict JSON.
    """
    value = _load(answer)
    if value is not _NOT_JSON:
        return _entries(value, keys, corners)
    bodies = answer.split("```")
    if len(bodies) == 1:
        return None
    # First to last fence first: a label may itself hold a fence.
    whole = _load(_body("```".join(bodies[1:-1]))) if len(bodies) > 3 else _NOT_JSON
    fenced = (_body(body) for body in bodies[1::2])
    values = [whole] if whole is not _NOT_JSON else [_load(body) for body in fenced if body.startswith(("[", "{", '"'))]
    strict = [value for value in values if value is not _NOT_JSON]
    return [entry for value in strict for entry in _entries(value, keys, corners)] if strict else None


def is_strict(answer: str) -> bool:
    """Tell whether an answer is one JSON value, bare or in one fence, and nothing else."""
    body = _bare(answer)
    return body[:1] in ("[", "{") and _load(body) is not _NOT_JSON


def close_tail(answer: str) -> str | None:
    r"""Close what an answer leaves open that was ended behind a list of numbers: its object, its list and its fence.

    Returns:
        The whole, which is strict JSON; None if that would not make it so.

    Example:
        >>> close_tail('[{"bbox_2d": [1, 2, 3, 4], ')
        '[{"bbox_2d": [1, 2, 3, 4]}]'
    """
    body = answer.rstrip()
    body = body.removesuffix(",").rstrip()
    if not body.endswith("]"):
        return None
    closed = (f"{body}{tail}" for tail in _TAILS)
    return next((whole for whole in closed if read_json(whole) is not None), None)


def says_nothing(answer: str) -> bool:
    """Tell whether a strict JSON answer is empty: null, an empty list or object, or an object of these alone."""
    value = _load(_bare(answer))
    if isinstance(value, _Object):
        return all(item is None or item is False or item == [] for _, item in value)
    return value is None or value == []


def names_none(words: str) -> bool:
    """Tell whether a word stands for no box: none, null, n/a and their like."""
    return words.strip().rstrip(".").lower() in _NONE


def coordinates(value: object) -> list[Entry]:
    """Read what stands after a box key: four numbers, lists of them one level deeper, or a word for no box."""
    if value is None or value == [] or (isinstance(value, str) and names_none(value)):
        return [Entry(None, absent=True)]
    plain = isinstance(value, list) and not isinstance(value, _Object)
    items: list[Any] = value if plain and isinstance(value, list) else []
    one_string = len(items) == 1 and isinstance(items[0], str)
    if one_string or (items and all(isinstance(item, list) for item in items)):
        return [_numbers(item).repaired(Repair.NESTED_LIST) for item in items]
    return [_numbers(value)]


def load_list(text: str) -> list[Any] | None:
    """Load a strict JSON list, or None."""
    value = _load(text)
    return value if isinstance(value, list) and not isinstance(value, _Object) else None


# parse_int=float: the digits of a Python int are limited, those of a float are not. Made once: `json.loads` would make
# one a call, which takes longer than decoding an answer.
_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_int=float)


@lru_cache(maxsize=4)  # one answer is looked at from several sides; what comes back is never changed
def _load(text: str) -> object:
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _bare(answer: str) -> str:
    """Take one fence around the whole answer away."""
    body = answer.strip()
    if body.startswith("```") and body.endswith("```") and len(body) > 6:
        body = _body(body[3:-3])
    return body


def _is_tool_call(value: _Object) -> bool:
    """Tell whether an object calls a tool, as Qwen's zoom does, or holds the arguments of such a call."""
    keys = {key for key, _ in value}
    return "img_idx" in keys or ("name" in keys and bool(keys & {"arguments", "parameters"}))


def _body(fenced: str) -> str:
    """Drop the language word after an opening fence."""
    stripped = fenced.lstrip()
    return (stripped[4:] if stripped[:4].lower() == "json" else stripped).strip()


def _entries(root: object, keys: tuple[str, ...], corners: tuple[str, ...], *, quoted: bool = False) -> list[Entry]:
    """Walk a JSON value in order, without recursion: how deep JSON may nest is the parser's affair, not the stack's."""
    found: list[Entry] = []
    foreign: list[
        Entry
    ] = []  # numbers under a key that names no box, such as "point_2d": they speak only if no box does
    stack: list[tuple[object, bool]] = [(root, False)]
    passed_over = False
    while stack:
        value, under_key = stack.pop()
        if isinstance(value, _Object):
            if _is_tool_call(value):
                continue
            label = next((item for key, item in value if key == "label" and isinstance(item, str)), None)
            if corners and (sides := [item for key in corners for name, item in value if name == key]):
                found.append(_numbers(sides)._replace(label=label))
            for key, item in value:
                if key in keys:
                    repairs = () if key == keys[0] else (Repair.BBOX_KEY,)
                    found += [e.repaired(*repairs)._replace(label=label) for e in coordinates(item)]
                elif key in KNOWN_KEYS and isinstance(item, list) and len(item) == 4:
                    passed_over = True
            stack += [
                (item, True)
                for key, item in reversed(value)
                if key not in keys and isinstance(item, list) and key.lower() not in _THOUGHTS | _OTHERS
            ]
        elif isinstance(value, list):
            # Numbers and lists mixed, as in [245, [234, 543, 542, 244]], are one malformed entry.
            numbers = _numbers(value)
            if len(value) > 1 and (numbers.numbers or any(isinstance(item, float) for item in value)):
                entry = Entry(None) if under_key else numbers.repaired(Repair.BARE_LIST)
                (foreign if under_key else found).append(entry)
            else:
                stack += [(item, under_key) for item in reversed(value) if isinstance(item, list | str)]
        elif isinstance(value, str) and not quoted and not under_key and "[" in value:
            found += _quoted(value, keys, corners)
    return [entry.repaired(Repair.PASSED_OVER) for entry in found] if passed_over and found else found or foreign


def _quoted(text: str, keys: tuple[str, ...], corners: tuple[str, ...]) -> Iterator[Entry]:
    """Read JSON that stands in a JSON string: one level, never deeper."""
    value = _load(text)
    entries = [] if value is _NOT_JSON else _entries(value, keys, corners, quoted=True)
    return (entry.repaired(Repair.QUOTED_JSON) for entry in entries)


def _numbers(value: object) -> Entry:
    """Read a list of numbers, some of them perhaps in strings, or a string that holds a list."""
    if isinstance(value, str):
        inner = value.strip()
        if inner[:1] == "[" and inner[-1:] == "]":
            inner = inner[1:-1]
        return read_numbers(inner).repaired(Repair.QUOTED_NUMBERS)
    if not isinstance(value, list):
        return Entry(None)
    numbers = [read_number(item.strip()) if isinstance(item, str) else item for item in value]
    finite = [number for number in numbers if isinstance(number, float) and math.isfinite(number)]
    if not numbers or len(finite) < len(numbers):
        return Entry(None)
    quoted = any(isinstance(item, str) for item in value)
    return Entry(tuple(finite), repairs=frozenset([Repair.QUOTED_NUMBERS] if quoted else []))
