"""`egm report`: tables, figures and galleries from journals, without a model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egm.cli import options
from egm.cli.printing import console, say_next
from egm.errors import EgmError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from egm.report.compare import Comparison
    from egm.report.grid import Grid
    from egm.report.runs import Run


class TableForm(StrEnum):
    """Forms of a table."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders that egm eval wrote.", show_default=False)
    ],
    form: Annotated[TableForm, typer.Option("--format", help="How the tables are printed.")] = TableForm.TERMINAL,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write tables and figures there too.", show_default=False)
    ] = None,
    paired: Annotated[bool, typer.Option("--paired", help="Compare two runs on the items that both answered.")] = False,
    name: Annotated[
        list[str] | None, typer.Option(help="What to call a run, one for each in order; else the model's name.")
    ] = None,
    allow_partial: options.AllowPartial = False,
    gallery: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write an HTML page of answers with pictures, boxes and reasoning.", show_default=False
        ),
    ] = None,
    gallery_items: Annotated[
        int | None, typer.Option(min=1, help="Most answers in the gallery; 200.", show_default=False)
    ] = None,
    images: options.Images = None,
) -> None:
    """Report runs of egm eval: the model card's table beside the published rows, latency and tokens.

    Everything is rebuilt from the journals, without a model. A gallery takes its pictures from --images, but those of
    SynthRef are drawn again.
    """
    from egm.report.run_tables import card_grid, cost_grid, sets_grid
    from egm.report.runs import load_runs

    if paired and len(runs) != 2:
        raise EgmError(f"--paired compares two runs, not {len(runs)}: give two run folders")
    if paired and form is TableForm.CSV:
        raise EgmError("a CSV file is one table, and --paired has more: give --out too, and another --format")
    if gallery is None and (gallery_items is not None or images is not None):
        raise EgmError("--gallery-items and --images are for a gallery: say where to write it with --gallery FILE")
    if gallery is not None and gallery.is_dir():
        raise EgmError(f"cannot write the gallery to {str(gallery)!r}, which is a folder: name a file in it")
    loaded = load_runs(runs, names=name, allow_partial=allow_partial)
    if paired and len(loaded) != 2:
        raise EgmError("the two runs differ in nothing but their splits: there is nothing to compare")
    grids = {"accuracy": card_grid(loaded), "latency": cost_grid(loaded)}
    if (sets := sets_grid(loaded)) is not None:
        grids["none_and_many"] = sets
    comparison = _compare(loaded) if paired else None
    if comparison is not None:
        grids |= _comparison_grids(comparison, loaded)
    # First what can fail, so that an error is all that is printed.
    if gallery is not None:
        _write_gallery(loaded, gallery, gallery_items, images)
    no_figures = None
    if out is not None:
        _write_tables(grids, comparison, out)
        try:
            _write_figures(loaded, out)
        except MissingExtraError as error:  # the tables are all the same
            no_figures = error
    _print(list(grids.values()), form)
    if no_figures is not None:
        raise no_figures
    if gallery is not None:
        say_next(f"open {gallery} in a browser")


def _compare(runs: Sequence[Run]) -> Comparison:
    from egm.report import compare

    first, second = runs
    return compare(first.records, second.records)


def _comparison_grids(comparison: Comparison, runs: Sequence[Run]) -> dict[str, Grid]:
    from egm.report.tables import comparison_grids

    stems = ("paired_differences", "paired_mcnemar", "paired_misses")
    # The last table is missing where both got the same items.
    return dict(zip(stems, comparison_grids(comparison, (runs[0].name, runs[1].name)), strict=False))


def _write_gallery(runs: Sequence[Run], path: Path, items: int | None, images: Path | None) -> None:
    from egm.files import write_text
    from egm.report.gallery import GALLERY_ITEMS, gallery

    options.refuse_no_folder(images)
    page = gallery(runs, images=images, items=GALLERY_ITEMS if items is None else items)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def _write_tables(grids: Mapping[str, Grid], comparison: Comparison | None, out: Path) -> None:
    import json

    from egm.files import write_text
    from egm.report import grid as forms

    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.md", "\n".join(map(forms.markdown, grids.values())))
    write_text(out / "report.tex", "\n".join(map(forms.latex, grids.values())))
    for stem, table in grids.items():
        write_text(out / f"{stem}.csv", forms.csv_text(table))
    if comparison is not None:
        write_text(out / "paired.json", json.dumps(comparison.to_dict(), indent=2) + "\n")


def _write_figures(runs: Sequence[Run], out: Path) -> None:
    from egm.files import write_bytes
    from egm.report.figure_points import points_of
    from egm.report.figures import latency_figure, tokens_figure
    from egm.report.runs import shared_splits

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


def _print(grids: Sequence[Grid], form: TableForm) -> None:
    from egm.report import grid as forms

    if form is TableForm.TERMINAL:
        console().print(forms.terminal(*grids))
    elif form is TableForm.CSV:
        print(forms.csv_text(grids[0]), end="")  # a CSV file is one table
    else:
        write = forms.markdown if form is TableForm.MARKDOWN else forms.latex
        print("\n".join(write(table) for table in grids), end="")
