"""The group classes of all commands that hold others."""

from __future__ import annotations

from typing import Final

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


class DefaultGroup(Group):
    """Commands of which the first is meant where none is named: `egm rationales DATASET`."""

    _HELP: Final = ("-h", "--help")

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put the first command's name before arguments that name none."""
        if args and args[0] not in self.commands and args[0] not in self._HELP:
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)
