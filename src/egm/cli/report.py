"""`egm report`: tables, figures and galleries from journals, without a model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egm.cli import options
from egm.cli.printing import console, note, say_next
from egm.errors import EgmError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

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
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Run folders that egm eval wrote, or files of predictions that carry the truth.",
            show_default=False,
        ),
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
    doubtful: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Which truths are doubtful: ids (.txt, .json), or a reviewed file of Ref-L4; repeatable. Figures with "
            "and without them stand side by side.",
            show_default=False,
        ),
    ] = None,
    trusted: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A dataset of trusted questions, such as RefCOCO-M, for figures on these alone; repeatable.",
            show_default=False,
        ),
    ] = None,
    hub: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write evaluation files for the Hugging Face Hub there: results for a model's repository "
            "(.eval_results), and eval.yaml for that of each benchmark.",
            show_default=False,
        ),
    ] = None,
    hub_dataset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=OWNER/NAME",
            help="With --hub: the dataset repository of splits whose own is not known, such as refcoco=me/refcoco.",
            show_default=False,
        ),
    ] = None,
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
    from egm.report.run_tables import accuracy_grids, cost_grid, sets_grid
    from egm.report.runs import load_runs

    if paired and len(runs) != 2:
        raise EgmError(f"--paired compares two runs, not {len(runs)}: give two run folders")
    if paired and form is TableForm.CSV:
        raise EgmError("a CSV file is one table, and --paired has more: give --out too, and another --format")
    if hub is None and hub_dataset:
        raise EgmError("--hub-dataset is for files of the Hub: say where to write them with --hub DIR")
    if gallery is None and (gallery_items is not None or images is not None):
        raise EgmError("--gallery-items and --images are for a gallery: say where to write it with --gallery FILE")
    if gallery is not None and gallery.is_dir():
        raise EgmError(f"cannot write the gallery to {str(gallery)!r}, which is a folder: name a file in it")
    loaded = load_runs(runs, names=name, allow_partial=allow_partial)
    if paired and len(loaded) != 2:
        raise EgmError("the two runs differ in nothing but their splits: there is nothing to compare")
    asked_here = [run for run in loaded if not run.is_predictions]
    grids = accuracy_grids(loaded) | ({"latency": cost_grid(asked_here)} if asked_here else {})
    if (sets := sets_grid(loaded)) is not None:
        grids["none_and_many"] = sets
    known = None
    if doubtful or trusted:
        from egm.report.known_truths import known_truths_grid, read_known_truths

        known = read_known_truths(loaded, doubtful=doubtful or (), trusted=trusted or ())
        grids["known_truths"] = known_truths_grid(loaded, known)
    comparison = _compare(loaded) if paired else None
    if comparison is not None:
        grids |= _comparison_grids(comparison, loaded)
    # First what can fail, so that an error is all that is printed.
    if hub is not None:
        _write_hub_files(loaded, hub, hub_dataset or [])
    if gallery is not None:
        marked = () if known is None else known.doubtful
        _write_gallery(loaded, gallery, gallery_items, images, marked)
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


def _write_hub_files(runs: Sequence[Run], folder: Path, named: Sequence[str]) -> None:
    from egm.report.hub_files import splits_left_out, write_hub_files

    if len(runs) != 1:
        raise EgmError(f"--hub writes the results of one model, not of {len(runs)}: give one run")
    pairs = [each.partition("=") for each in named]
    if wrong := next((each for each, (_, sign, _) in zip(named, pairs, strict=True) if not sign), None):
        raise EgmError(f"--hub-dataset {wrong!r} must be NAME=OWNER/NAME, such as refcoco=me/refcoco")
    datasets = {family: dataset for family, _, dataset in pairs}
    for path in write_hub_files(runs[0], folder, datasets):
        note(f"wrote {path}")
    for split in splits_left_out(runs[0], datasets):
        note(f"{split} is left out, as the Hub has no such split: ask the splits that it consists of")


def _write_gallery(
    runs: Sequence[Run], path: Path, items: int | None, images: Path | None, doubtful: Collection[tuple[str, str]]
) -> None:
    from egm.files import write_text
    from egm.report.gallery import GALLERY_ITEMS, gallery

    options.refuse_no_folder(images)
    most = GALLERY_ITEMS if items is None else items
    page = gallery(runs, images=images, items=most, doubtful=doubtful)
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
