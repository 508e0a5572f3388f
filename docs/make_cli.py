"""Write docs/cli.md: every command with its arguments and options, from the commands themselves.

uv run python docs/make_cli.py
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from egm.cli import app
from egm.cli.group import DefaultGroup

_KINDS = {"str": "TEXT", "int": "N", "int range": "N", "float": "X", "path": "PATH", "Path": "PATH"}

HEAD = """# Command line

`egm COMMAND --help` prints the same in a terminal. `-h` and `--help` are left out here. Output goes to standard output,
all else to standard error; exit codes are 0 where all went well, 2 for what a user can mend, which is one line, and 1
where a command found something, such as `egm data check` a fault. [Start](start.md#what-else-there-is) shows each
command in a line, [Keys of recipes](recipes.md) what recipes say.

This page is written by `docs/make_cli.py`; do not edit it.
"""


def page() -> str:
    """The whole page."""
    root: Any = typer.main.get_command(app)
    commands = list(_commands(root, "egm", None))
    rows = [f"| [`{path}`](#{path.replace(' ', '-')}) | {_summary(command)} |" for path, command, _ in commands]
    table = "\n".join(["| command | |", "|---|---|", *rows])
    return "\n".join([HEAD, table, "", *(_section(*each) for each in commands)])


def _commands(command: Any, path: str, parent: Any) -> Iterator[tuple[str, Any, Any]]:
    """Go through the commands with their contexts; a group's first that may be left unnamed has its name."""
    context = command.context_class(command, info_name=path.rpartition(" ")[2], parent=parent)
    inner = getattr(command, "commands", {})
    if not inner or (parent is not None and command.invoke_without_command):
        yield path, command, context
    for number, (name, each) in enumerate(inner.items()):
        unnamed = isinstance(command, DefaultGroup) and number == 0
        yield from _commands(each, path if unnamed else f"{path} {name}", context)


def _section(path: str, command: Any, context: Any) -> str:
    parts = [f"## {path}", inspect.cleandoc(command.help or "")]
    for kind in ("argument", "option"):
        records = [
            parameter.get_help_record(context)
            for parameter in command.get_params(context)
            if parameter.param_type_name == kind and "--help" not in parameter.opts
        ]
        if rows := [f"| `{_cell(_named(name))}` | {_cell(_said(text))} |" for name, text in filter(None, records)]:
            parts.append("\n".join([f"| {kind} | |", "|---|---|", *rows]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _named(name: str) -> str:
    """Name what an option takes by one word: `<list[str]>` becomes TEXT."""
    name, argument = re.sub(r"<(?:list\[)?([^<>\]]+)\]?>", lambda match: _KINDS.get(match[1], match[1]), name), name
    return name if name.startswith("--") and name[2:3] != " " else argument.partition(" <")[0].strip("[]")


def _said(text: str) -> str:
    """Word what stands in brackets behind a text: `[default: 4; x>=1]` becomes "By default 4; at least 1."."""
    text, _, facts = f"  {text}".partition("  [") if text.startswith("[") else text.partition("  [")
    words = [re.sub(r"^(\d+)<=x<=(\d+)$", r"\1 to \2", fact) for fact in facts.rstrip("]").split("; ") if fact]
    words = [re.sub(r"^x>=", "at least ", word.replace("default: ", "by default ")) for word in words]
    said = "; ".join(words)
    return f"{text} {said[:1].upper()}{said[1:]}." if said else text


def _summary(command: Any) -> str:
    return _cell(inspect.cleandoc(command.help or "").partition("\n\n")[0])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(page(), encoding="utf-8")
