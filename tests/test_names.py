"""What a reader searches for: names that mean one thing, and packages whose faces hold no code."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import egm

SOURCE = Path(egm.__file__).parent
SAME_MEANING = {"main", "make_trainer"}
"""Defined in several modules, with one meaning: each stage of training has its trainer, each command its beginning."""


def definitions(path: Path) -> list[str]:
    """Names of a module's functions and classes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]


def test_no_package_has_code_in_its_face() -> None:
    faces = [path for path in SOURCE.rglob("__init__.py") if definitions(path)]
    assert faces == []


def test_public_names_mean_one_thing() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in SOURCE.rglob("*.py"):
        for name in definitions(path):
            if not name.startswith("_"):
                homes[name].append(str(path.relative_to(SOURCE)))
    assert {name: found for name, found in homes.items() if len(found) > 1 and name not in SAME_MEANING} == {}
