"""The table of defects that engines are known for: how each is told, what to do, and where it was seen."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Defect:
    """A defect as the table has it.

    Attributes:
        name: What a diagnosis calls it.
        title: The same in words.
        symptom: How it is told.
        advice: What to do.
        sources: Issues, pull requests, and code of named versions.
    """

    name: str
    title: str
    symptom: str
    advice: str
    sources: tuple[str, ...]


@lru_cache(maxsize=1)
def known_defects() -> Mapping[str, Defect]:
    """Return the table by name.

    Example:
        >>> known_defects()["stale_prefix"].title
        'stale prefix cache'
    """
    table = tomllib.loads(Path(__file__).with_name("defects.toml").read_text(encoding="utf-8"))
    return {name: Defect(name=name, **{**row, "sources": tuple(row["sources"])}) for name, row in table.items()}
