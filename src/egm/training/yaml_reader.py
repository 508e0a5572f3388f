"""YAML read strictly and within bounds: no key twice, no value that is none, and no file that unfolds without end."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from egm.errors import RecipeError

_MOST_CHARACTERS = 1_000_000
_MOST_VALUES = 100_000
_DEEPEST = 100
_TOO_DEEP = "is nested more deeply than any recipe"
_SHOWN = 80
# 010 is 8 and 1:30 is 90 by YAML 1.1, and neither by YAML 1.2.
_OTHER_BASE = re.compile(r"[-+]?(?:0[0-9_]+|[0-9_]+(?::[0-9_.]+)+)")


class NotYamlError(ValueError):
    """What is wrong with a text that should be YAML, as the end of a sentence about it."""


def read_yaml(text: str) -> Any:
    """Read one YAML document of plain values.

    Args:
        text: The document.

    Raises:
        NotYamlError: If it is not YAML, has a key twice or a value that is none, or is larger than any recipe with its
            anchors written out.
    """
    if len(text) > _MOST_CHARACTERS:
        raise NotYamlError(f"is longer than {_MOST_CHARACTERS:,} characters: no recipe is")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _unfolded(node, {}, 0) > _MOST_VALUES:
            raise NotYamlError(f"holds more than {_MOST_VALUES:,} values with its anchors written out: no recipe does")
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise NotYamlError(f"is not YAML{where}: {reason}") from None
    except RecursionError:
        raise NotYamlError(_TOO_DEEP) from None


def read_yaml_file(path: Path, what: str, *, missing: str) -> Any:
    """Read a file of one YAML document.

    Args:
        path: The file.
        what: What messages call it.
        missing: The message where there is none.

    Raises:
        RecipeError: If it cannot be read, or `read_yaml` refuses it.
    """
    try:
        return read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(missing) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{what} {path} cannot be read: {error}") from None
    except NotYamlError as fault:
        raise RecipeError(f"{what} {path} {fault}") from None


def shortened(value: Any) -> str:
    """Write a value for a message, cut off after some letters."""
    try:
        words = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        words = "a number of thousands of digits"
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."


class _Loader(yaml.SafeLoader):
    """PyYAML's own, in which what is no value of its sort is an error of YAML."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if node.tag.endswith((":int", ":float")) and _OTHER_BASE.fullmatch(str(node.value)):
            what = (
                f"{shortened(node.value)} would be another number by YAML 1.1: write it in tens, or as text in quotes"
            )
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError):
            # PyYAML's constructors look at the words of a date or a number only halfway.
            sort = node.tag.rpartition(":")[2]
            what = f"{shortened(getattr(node, 'value', None))} is no {sort} that can be read"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from None


def _unfolded(node: Any, known: dict[int, int | None], depth: int) -> int:
    """Count the values in a node, those behind an anchor as often as they are meant; None marks one that is open.

    Raises:
        NotYamlError: If a node holds itself, or is nested too deeply, or a key stands twice in one.
    """
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            raise NotYamlError("has an anchor that holds itself")
        return count
    if depth > _DEEPEST:
        raise NotYamlError(_TOO_DEEP)
    known[id(node)] = None
    count = 1
    if isinstance(node, yaml.MappingNode):
        _refuse_doubles(key for key, _ in node.value)
        count += sum(_unfolded(part, known, depth + 1) for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_unfolded(value, known, depth + 1) for value in node.value)
    known[id(node)] = count
    return count


def _refuse_doubles(keys: Iterable[Any]) -> None:
    """Refuse a key that stands twice in a mapping, of which YAML's reader takes the last; a merge may stand as well."""
    known = set()
    for key in keys:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.value in known:
            raise NotYamlError(f"has the key {shortened(key.value)} twice, again at line {key.start_mark.line + 1}")
        known.add(key.value)
