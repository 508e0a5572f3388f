"""The group classes of all commands that hold others."""

from __future__ import annotations

from typing import Any, Final

import typer
from typer.core import TyperGroup, TyperOption

from egm.errors import EgmError


class Group(TyperGroup):
    """Commands whose `--help` needs no pydantic: Typer takes it to read an option that has no default."""

    def get_help_option(self, ctx: typer.Context) -> TyperOption | None:  # type: ignore[override]
        """Return the help option, given a default."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command that is named; what Typer says of a wrong choice loses pydantic's words before it."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> tuple[str | None, Any, list[str]]:  # type: ignore[override]
        """Find the command that is named, and refuse several servers where it takes one."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not isinstance(command, TyperGroup):
            _refuse_servers(command, rest)
        return name, command, rest


class DefaultGroup(Group):
    """Commands of which the first is meant where none is named: `egm rationales DATASET`."""

    _HELP: Final = ("-h", "--help")

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put the first command's name before arguments that name none."""
        if args and args[0] not in self.commands and args[0] not in self._HELP:
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)


def _refuse_servers(command: Any, args: list[str]) -> None:
    """Refuse `--server` twice where only the last would be asked: `egm eval` takes several.

    Raises:
        EgmError: If that is so.
    """
    if any("--server" in option.opts and not option.multiple for option in command.params):
        ours = args[: args.index("--")] if "--" in args else args
        if sum(word.partition("=")[0] == "--server" for word in ours) > 1:
            raise EgmError("--server is given twice, and this command asks one: give it once")
