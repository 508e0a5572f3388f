"""How commands print: consoles, plain tables, figures."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from egm.terminal import printable, spaced, without_password

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_FILE_WIDTH = 200


def console() -> Console:
    """A console on standard output; where that is no terminal, lines may be long, for a file has no edge."""
    from rich.console import Console

    made = Console(highlight=False)
    if not made.is_terminal:
        made.width = max(made.width, _FILE_WIDTH)
    return made


def note(text: str) -> None:
    """Say on standard error, in one line, what the reader of the figures should know."""
    print("note:", without_password(printable(text)), file=sys.stderr)


def say_next(*steps: str) -> None:
    """Say on standard error what to do now: the last line of a command that took its time.

    Args:
        *steps: Commands, or what else there is to do, in order; paths and names in them may come from anywhere.
    """
    print("next:", ", then ".join(map(spaced, steps)), file=sys.stderr)


def plain_table(*columns: str, names: int = 1) -> Table:
    """A table without lines, whose rows do not wrap.

    Args:
        *columns: Their titles.
        names: How many of them, from the left, hold names; the others hold figures.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, title in enumerate(columns):
        table.add_column(Text(title), justify="left" if number < names else "right", no_wrap=True)
    return table


def figure(value: float | None, digits: int, *, scale: float = 1.0) -> str:
    """A number with so many digits after the point, or a dash where there is none."""
    return "-" if value is None else f"{value * scale:.{digits}f}"
