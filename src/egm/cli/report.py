"""`egm report`: tables, figures and galleries from journals, without a model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egm.errors import EgmError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egm.report.grid import Grid
    from egm.report.runs import Run


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
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write tables and figures there too.", show_default=False)
    ] = None,
    paired: Annotated[
        bool, typer.Option("--paired", help="Compare two runs on the items that both answered; for the terminal.")
    ] = False,
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

    if paired and len(runs) != 2:
        raise EgmError(f"--paired compares two runs, not {len(runs)}: give two run folders")
    if paired and form is not Format.TERMINAL:
        raise EgmError("--paired is printed for the terminal: leave --format out")
    loaded = load_runs(runs, names=name, allow_partial=allow_partial)
    if paired and len(loaded) != 2:
        raise EgmError("the two runs differ in nothing but their splits: there is nothing to compare")
    grids = [card_grid(loaded), cost_grid(loaded)]
    _print(grids, form)
    if paired:
        _print_comparison(loaded)
    if out is not None:
        _write(loaded, grids, out)


def _print_comparison(runs: Sequence[Run]) -> None:
    from rich.console import Console

    from egm.report import compare
    from egm.report.tables import comparison_tables

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 160)
    first, second = runs
    console.print("", comparison_tables(compare(first.records, second.records), (first.name, second.name)), sep="\n")


def _write(runs: Sequence[Run], grids: Sequence[Grid], out: Path) -> None:
    from egm.files import write_bytes, write_text
    from egm.report import grid as forms
    from egm.report.figures import latency_figure, tokens_figure
    from egm.report.points import points_of
    from egm.report.runs import shared_splits

    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.md", "\n".join(map(forms.markdown, grids)))
    write_text(out / "report.tex", "\n".join(map(forms.latex, grids)))
    for stem, table in zip(("accuracy", "latency"), grids, strict=True):
        write_text(out / f"{stem}.csv", forms.csv_text(table))
    splits = shared_splits(runs)
    points = points_of(runs, splits) if splits else []
    figures = {}
    if any(point.milliseconds for point in points if not point.is_published):
        figures["accuracy_latency"] = latency_figure(points, splits)
    if any(point.tokens for point in points if not point.is_published):
        figures["accuracy_tokens"] = tokens_figure(points, splits)
    for stem, files in figures.items():
        for suffix, content in files.items():
            write_bytes(out / f"{stem}{suffix}", content)


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
