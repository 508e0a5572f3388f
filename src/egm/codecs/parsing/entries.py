"""What stands in an answer where a box should: four numbers, or something that is not."""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import NamedTuple

# ASCII digits only, and no "1_000", "nan" or "inf", which float() would take. Possessive: linear on any input.
_NUMBER = re.compile(r"[+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+")
_PLAIN = re.compile(r"[0-9., \t\r\n-]*+")
_MOST_NUMBERS = 64
_QUOTES = " \t\r\n\"'`\\"
# JSON has no such numbers; what writes "[1,000, 200, 300]" means three.
_LEADING_ZERO = re.compile(r"(?<![0-9.eE])0[0-9]")


class Repair(StrEnum):
    """A lenience that reading a box took, in the order in which they are listed."""

    BBOX_KEY = "bbox_key"
    """The key was `bbox` or `bounding_box`, not `bbox_2d`."""
    QUOTED_NUMBERS = "quoted_numbers"
    """The numbers, or the whole list, stood in a string."""
    SPACES = "spaces"
    """The numbers were parted by spaces, not commas."""
    PUNCTUATION = "punctuation"
    """Full-width or typographic punctuation, or no-break spaces, stood for the ASCII of JSON; digits must be ASCII."""
    WRONG_BRACKET = "wrong_bracket"
    """The list was closed by another bracket than it was opened by."""
    NESTED_LIST = "nested_list"
    """The list of numbers stood one list too deep."""
    QUOTED_JSON = "quoted_json"
    """The JSON stood in a JSON string."""
    OTHER_FORM = "other_form"
    """The form was another family's: tags where JSON is the convention, or JSON where tags are."""
    BROKEN_JSON = "broken_json"
    """The text is not strict JSON (stray quotes, prose around, cut off): complete lists after a box key were taken."""
    CORNER_PAIRS = "corner_pairs"
    """Two corners stood in parentheses of their own, `(x1,y1),(x2,y2)`."""
    BARE_LIST = "bare_list"
    """Four numbers stood in brackets without a key or tags."""
    PASSED_OVER = "passed_over"
    """Four numbers under another family's key, such as `box_2d`, were passed over: their order is another."""
    IN_WORDS = "in_words"
    """That nothing matches was said in words, where an empty list is the form."""
    TOO_MANY = "too_many"
    """The boxes past the first `egm.codecs.parsing.reading.MAX_BOXES` were passed over."""


_NO_REPAIRS: frozenset[Repair] = frozenset()


class Entry(NamedTuple):
    """Something in an answer that stands where a box should.

    Attributes:
        numbers: Its numbers in the order written, or None if it is not numbers at all.
        label: The label beside it, if any.
        repairs: What reading it took.
        absent: Whether it says that there is no box: null, an empty list, "none".
    """

    numbers: tuple[float, ...] | None
    label: str | None = None
    repairs: frozenset[Repair] = _NO_REPAIRS
    absent: bool = False

    def repaired(self, *repairs: Repair) -> Entry:
        """Return this entry with more repairs noted."""
        return self._replace(repairs=self.repairs.union(repairs))


def read_number(text: str) -> float | None:
    """Read one decimal number, or None; one too large for a float is not finite, and not a number here."""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def read_numbers(text: str) -> Entry:
    """Read numbers parted by commas, or by spaces, each of them in quotes or not."""
    if _LEADING_ZERO.search(text):
        return Entry(None)
    if _PLAIN.fullmatch(text) and "," in text:
        # The common case, quickly: what float() takes of these characters is what `read_number` takes.
        try:
            plain = tuple(map(float, text.split(",", _MOST_NUMBERS)))
        except ValueError:
            plain = ()
        if plain and all(map(math.isfinite, plain)):
            return Entry(plain)
    commas = text.count(",")
    items = text.split(",", _MOST_NUMBERS) if commas else text.split(None, _MOST_NUMBERS)
    if commas and not items[-1].strip():
        items.pop()
    values = []
    quoted = False
    for item in items if len(items) <= _MOST_NUMBERS else ():
        bare = item.strip(_QUOTES)
        quoted = quoted or len(bare) != len(item.strip())
        value = read_number(bare)
        if value is None:
            return Entry(None)
        values.append(value)
    found = [*([Repair.QUOTED_NUMBERS] if quoted else []), *([Repair.SPACES] if not commas and len(values) > 1 else [])]
    return Entry(tuple(values) or None, repairs=frozenset(found))
