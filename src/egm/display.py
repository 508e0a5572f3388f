"""Text as people are shown it: terminal-safe whatever data it comes from, and parameter counts in short."""

from __future__ import annotations

_JOINER = "\N{ZERO WIDTH JOINER}"  # counts as unprintable, but holds one emoji together and steers nothing
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def printable(text: str) -> str:
    """Terminal-safe text on one line: what could steer a terminal, break a line or fail to be encoded is replaced.

    That is control characters, escape sequences, changes of direction and halves of surrogate pairs.
    """
    shown = (c if c.isprintable() or c == _JOINER else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    return "".join(shown)


def size_text(parameters: int) -> str:
    """Parameter count in three digits, such as `8.77B` or `11.5M`."""
    for size, unit in _UNITS:
        if parameters >= 0.9995 * size:  # three digits round 999.5 of the smaller unit up to 1 of this one
            return f"{parameters / size:.3g}{unit}"
    return str(parameters)
