"""The key of a server: read whole, and never shown."""

from __future__ import annotations

import json
from urllib.parse import quote

from egm.errors import EgmError

_SHORTEST = 6  # what is shorter stands in words too, and is no key that protects anything
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


def without_key(text: str, key: str) -> str:
    """Put stars in the place of a key, however it was escaped."""
    if len(key) < _SHORTEST:
        return text.replace(f"Bearer {key}", f"Bearer {_STARS}") if key else text
    forms = {key, repr(key)[1:-1], json.dumps(key)[1:-1], quote(key, safe=""), quote(key), key.replace("/", "\\/")}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, _STARS)
    return text
