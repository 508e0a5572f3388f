"""Keys of recipes: all are explained, in a terminal, in a pipe and in the document, by the classes that read them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field
from typer.testing import CliRunner

from egm.cli import app
from egm.reproduce.recipe import ReproduceRecipe
from egm.training.grpo.recipe import GRPORecipe
from egm.training.keys import Key, key_listing, key_tables, keys_of
from egm.training.recipe import Section
from egm.training.sft.recipe import SFTRecipe

DOCS = Path(__file__).parents[2] / "docs"
STAGES: dict[str, type[Section]] = {"sft": SFTRecipe, "grpo": GRPORecipe, "reproduce": ReproduceRecipe}


class Inner(Section):
    size: int = Field(default=2, ge=1, lt=9)
    """How many."""


class Outer(Section):
    name: str
    """What it is
    called."""
    inner: Inner = Inner()
    """Fixed."""
    maybe: Inner | None = None
    """Optional."""
    several: tuple[Inner, ...] = ()
    """Listed."""
    named: dict[str, Inner] = Field(default_factory=dict)
    """By name | or not."""


def test_types_defaults_and_meanings_are_those_of_the_class() -> None:
    how_many = ("whole number, at least 1, below 9", "2", "How many.")
    assert list(keys_of(Outer)) == [
        Key("name", "text", None, "What it is called."),
        Key("inner", "section", "", "Fixed."),
        Key("inner.size", *how_many),
        Key("maybe", "section, or null", "null", "Optional."),
        Key("maybe.size", *how_many),
        Key("several", "list of sections", "[]", "Listed."),
        Key("several[].size", *how_many),
        Key("named", "section with names of one's own", "{}", "By name | or not."),
        Key("named.NAME.size", *how_many),
    ]
    assert "name\n    text; required\n    What it is called.\n\ninner\n    section\n    Fixed.\n" in key_listing(Outer)
    assert "maybe\n    section, or null; default null\n" in key_listing(Outer)
    assert "| `name` | text | required | What it is called. |" in key_tables(Outer)
    assert "| `inner.size` | whole number, at least 1, below 9 | `2` | How many. |" in key_tables(Outer)
    assert r"By name \| or not." in key_tables(Outer)


def _paths(content: Any, prefix: str = "") -> Iterator[str]:
    """The keys of a resolved recipe."""
    for name, value in content.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{name}.")


@pytest.mark.parametrize("kind", STAGES.values(), ids=STAGES)
def test_every_key_is_explained(kind: type[Section]) -> None:
    keys = list(keys_of(kind))
    assert [key.name for key in keys if not key.meaning] == []
    names = {key.name for key in keys}
    assert set(kind.model_fields) <= names
    if kind is GRPORecipe:
        resolved = GRPORecipe.model_validate({"model": {"name": "m", "lora": {}}, "optim": {"steps": 1}, "eval": {}})
        assert set(_paths(resolved.model_dump(mode="json"))) <= names
        assert {"reward.terms[].kind: giou_below", "reward.terms[].slope", "reward.format_gate.factor"} <= names


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("columns", [80, 57])
def test_the_command_prints_them_without_a_recipe(stage: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = CliRunner().invoke(app, [stage, "--keys"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == key_listing(STAGES[stage], width=columns)
    assert max(map(len, result.stdout.splitlines())) <= columns
    assert [line for line in result.stdout.splitlines() if line and not line.startswith(" ")] == [
        key.name for key in keys_of(STAGES[stage])
    ]
    assert "\x1b" not in result.stdout


def test_the_document_is_that_of_the_classes() -> None:
    spec = importlib.util.spec_from_file_location("make_recipes", DOCS / "make_recipes.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    written = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert written == script.page(), "docs/recipes.md is stale: uv run python docs/make_recipes.py"
