"""Write docs/recipes.md: every key of the recipes, from the classes that read them.

uv run python docs/make_recipes.py
"""

from __future__ import annotations

from pathlib import Path

from egm.reproduce.recipe import ReproduceRecipe
from egm.training.grpo.recipe import GRPORecipe
from egm.training.keys import key_tables
from egm.training.sft.recipe import SFTRecipe

HEAD = """# Keys of recipes

A recipe is one YAML file: here a section is a heading and a key a row. `--set section.key=value` overrides one on the
command line. The same list is printed by `egm sft --keys`, `egm grpo --keys` and `egm reproduce --keys`. In a name `[]`
stands for each entry of a list, and `NAME` for a name of your own.

This page is written by `docs/make_recipes.py`; do not edit it.
"""


def page() -> str:
    """The whole page."""
    stages = (("sft", SFTRecipe), ("grpo", GRPORecipe), ("reproduce", ReproduceRecipe))
    return "\n".join([HEAD, *(f"## `egm {name}`\n\n{key_tables(kind)}" for name, kind in stages)])


if __name__ == "__main__":
    Path(__file__).with_name("recipes.md").write_text(page(), encoding="utf-8")
