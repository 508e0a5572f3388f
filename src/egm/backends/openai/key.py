"""The key of a server: read whole, and never shown."""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64encode
from functools import lru_cache
from html.entities import html5

from egm.errors import EgmError

_SHORTEST = 6  # what is shorter stands in words too, and is no key that protects anything
_HEAD = 8  # so much of a key's beginning is enough to be told by
_STARS = "***"


def read_key(given: str) -> str:
    """Take the white space off a key, as a file or a shell leaves it there.

    Raises:
        EgmError: If it holds what no header can.
    """
    key = given.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise EgmError("the api_key holds white space, control characters or other than ASCII: check OPENAI_API_KEY")
    return key


def without_key(text: str, key: str, *, answer: bool = False) -> str:
    """Put stars in the place of a key, whatever the case and however it was escaped; also of its beginning alone.

    Args:
        text: What a server sent, whole: a key that was cut is known by its beginning only.
        key: The key, or nothing.
        answer: Whether the text is a model's answer, where only the whole key goes: its beginning may be a word.
    """
    if len(key) < _SHORTEST:
        return text.replace(f"Bearer {key}", f"Bearer {_STARS}") if key else text
    characters, whole, encoded, head = _patterns(key)
    text = encoded.sub(_STARS, whole.sub(_STARS, text))
    if answer or len(characters) <= _HEAD:
        return text
    kept, place = [], 0
    while found := head.search(text, place):
        kept += [text[place : found.start()], _STARS]
        place = found.end()
        for character in characters[_HEAD:]:
            if (more := character.match(text, place)) is None:
                break
            place = more.end()
    return "".join([*kept, text[place:]])


@lru_cache(maxsize=8)
def _patterns(key: str) -> tuple[list[re.Pattern[str]], re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Make what finds a key: each of its characters, all of it, all of it encoded, its beginning."""
    # A backslash is doubled as often as it is escaped.
    characters = [_character(part) for part in re.findall(r"\\+|.", key)]
    data = key.encode()
    encoded = [re.escape(code) for code in _base64(data)] + [f"(?i:{data.hex()})"]
    return (
        [re.compile(character, re.IGNORECASE) for character in characters],
        re.compile("".join(characters), re.IGNORECASE),
        re.compile("|".join(encoded)),
        re.compile("".join(characters[:_HEAD]), re.IGNORECASE),
    )


def _character(character: str) -> str:
    """Match a character as it is, or as JSON, Python, URLs and HTML escape it. Bounded, so that no text takes long."""
    if character[0] == "\\":
        most = 8 * len(character)
        numbered = r"(?:#0{0,5}92|#x0{0,4}5c|bsol);"
        return rf"(?:\\{{1,8}}+(?:u00|x)5c|\\{{1,{most}}}+|%(?:25){{0,2}}5c|&(?:amp;){{0,2}}{numbered})"
    code = ord(character)
    names = "".join(f"|{name[:-1]}" for name, value in html5.items() if value == character and name[-1] == ";")
    return (
        rf"(?:\\{{1,8}}+(?:u00|x){code:02x}|%(?:25){{0,2}}{code:02x}"
        rf"|&(?:amp;){{0,2}}(?:#0{{0,5}}{code}|#x0{{0,4}}{code:x}{names});|\\{{0,8}}+{re.escape(character)})"
    )


def _base64(data: bytes) -> set[str]:
    """Encode data as it looks inside of more, such as `Bearer …`: after any number of bytes, less what those share."""
    forms = set()
    for before in range(3):
        for encode in (b64encode, urlsafe_b64encode):
            code = encode(bytes(before) + data).decode().rstrip("=")
            last = len(code) - 1 if (before + len(data)) % 3 else len(code)
            forms.add(code[(0, 2, 3)[before] : last])
    return forms
