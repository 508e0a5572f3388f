"""The group class of all commands that hold others."""

from __future__ import annotations

import typer
from typer.core import TyperGroup, TyperOption


class Group(TyperGroup):
    """Commands whose `--help` needs no pydantic: Typer takes it to read an option that has no default."""

    def get_help_option(self, ctx: typer.Context) -> TyperOption | None:  # type: ignore[override]
        """Return the help option, given a default."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option
