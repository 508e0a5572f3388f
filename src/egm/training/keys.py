"""Every key of a recipe with its type, default and meaning, as text for a terminal and as Markdown.

All of it comes from the classes that read recipes: the type and the default from a field, the meaning from the
docstring under it.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from egm.training.recipe import Section

_PLAIN = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path", Any: "anything"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a recipe.

    Attributes:
        name: Its place, such as `optim.steps`; `[]` stands for each of a list, `NAME` for each name of one's own.
        type: What values it takes, in words.
        default: Its default, as YAML has it; None if it is required, empty for a section whose keys have defaults.
        meaning: What it does.
    """

    name: str
    type: str
    default: str | None
    meaning: str


def keys_of(kind: type[Section], prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a recipe or a section, each before the keys inside it.

    Args:
        kind: The class that reads it.
        prefix: What the names begin with.
    """
    for name, field in kind.model_fields.items():
        place, annotation = f"{prefix}{name}", field.annotation
        yield Key(place, _type(annotation, field.metadata), _default(field), _flat(field.description))
        for section, step in _sections(annotation):
            within = f"{place}{step}."
            if "kind" not in section.model_fields:
                yield from keys_of(section, within)
                continue
            [tag] = get_args(section.model_fields["kind"].annotation)
            first, *others = keys_of(section, within)
            meaning = _flat((section.__doc__ or "").partition("\n\n")[0])
            yield Key(f"{first.name}: {tag}", "one of the kinds", "", meaning)
            yield from others


def key_listing(kind: type[Section], *, width: int = 80) -> str:
    """List the keys of a recipe for a terminal.

    Args:
        kind: The class that reads it.
        width: Columns.
    """
    entries = []
    for key in keys_of(kind):
        default = "required" if key.default is None else key.default and f"default {key.default}"
        facts = f"{key.type}; {default}" if default else key.type
        lines = [
            line
            for words in (facts, key.meaning)
            for line in textwrap.wrap(
                words,
                width,
                initial_indent=_INDENT,
                subsequent_indent=_INDENT,
                break_long_words=False,
                break_on_hyphens=False,
            )
        ]
        entries.append("\n".join([key.name, *lines]))
    return "\n\n".join(entries) + "\n"


def key_tables(kind: type[Section]) -> str:
    """Write the keys of a recipe as one table a section."""
    tables: dict[str, list[str]] = {}
    for key in keys_of(kind):
        section = key.name.partition(".")[0] if "." in key.name else ""
        default = "required" if key.default is None else key.default and f"`{key.default}`"
        cells = (f"`{key.name}`", key.type, default, key.meaning)
        tables.setdefault(section, []).append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head = ["| key | type | default | meaning |", "|---|---|---|---|"]
    parts = []
    for section, rows in tables.items():
        parts.append("\n".join([*([f"### `{section}`", ""] if section else []), *head, *rows, ""]))
    return "\n".join(parts)


def _type(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """Word what values an annotation takes; bounds come from the metadata beside it."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):  # Annotated
        words = _type(parts[0], annotation.__metadata__)
    elif origin in (Union, UnionType):
        some = [part for part in parts if part is not NoneType]
        kinds = [_type(part, metadata) for part in some]
        if all(map(_is_section, some)) and len(some) > 1:
            kinds = ["section"]
        return " or ".join(kinds) + (", or null" if NoneType in parts else "")
    elif origin is Literal:
        words = " or ".join(f"`{choice}`" for choice in parts)
    elif origin is tuple:
        words = f"list of {_plural(parts[0])}"
    elif origin is dict:
        words = "section with names of one's own"
    elif _is_section(annotation):
        words = "section"
    else:
        words = _PLAIN[annotation]
    bounds = [
        f"{word} {getattr(bound, name):g}"
        for bound in metadata
        for name, word in _BOUNDS.items()
        if hasattr(bound, name)
    ]
    return ", ".join([words, *bounds])


def _plural(annotation: Any) -> str:
    words = _type(annotation)
    return {"section": "sections", "text": "texts"}.get(words, words)


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    if field.default_factory is not None:  # of empty containers
        return "{}"
    return "" if isinstance(field.default, Section) else _yaml(field.default)


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, Section):
        shown = value.model_dump(mode="json", exclude_defaults=True) | {"kind": getattr(value, "kind", None)}
        return f"{{{', '.join(f'{name}: {_yaml(inner)}' for name, inner in shown.items())}}}"
    return value if isinstance(value, str) else json.dumps(value)


def _sections(annotation: Any, step: str = "") -> list[tuple[type[Section], str]]:
    """List the sections in an annotation, each with what leads to it: nothing, `[]`, or `.NAME`."""
    if _is_section(annotation):
        return [(annotation, step)]
    origin = get_origin(annotation)
    step += "[]" if origin is tuple else ".NAME" if origin is dict else ""
    return [found for part in get_args(annotation) for found in _sections(part, step)]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _flat(description: str | None) -> str:
    return " ".join((description or "").split())
