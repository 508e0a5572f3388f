"""`egm report`: tables, figures and galleries from journals, without a model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egm.report.grid import Grid


class Format(StrEnum):
    """Forms of a table."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders that egm eval wrote.", show_default=False)
    ],
    form: Annotated[Format, typer.Option("--format", help="How the tables are printed.")] = Format.TERMINAL,
    name: Annotated[
        list[str] | None, typer.Option(help="What to call a run, one for each in order; else the model's name.")
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Report runs in which samples are missing.")
    ] = False,
) -> None:
    """Report runs of egm eval: the model card's table beside the published rows, latency and tokens.

    Everything is rebuilt from the journals, without a model.
    """
    from egm.report.card import card_grid, cost_grid
    from egm.report.runs import load_runs

    loaded = load_runs(runs, names=name, allow_partial=allow_partial)
    _print([card_grid(loaded), cost_grid(loaded)], form)


def _print(grids: Sequence[Grid], form: Format) -> None:
    from rich.console import Console

    from egm.report import grid as forms

    if form is Format.TERMINAL:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = max(console.width, 160)  # a file has no edge
        for number, table in enumerate(grids):
            console.print(*([""] if number else []), forms.terminal(table), sep="\n")
    elif form is Format.CSV:
        print(forms.csv_text(grids[0]), end="")  # a CSV file is one table
    else:
        write = forms.markdown if form is Format.MARKDOWN else forms.latex
        print("\n".join(write(table) for table in grids), end="")
