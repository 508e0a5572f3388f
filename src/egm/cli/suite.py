"""Suites on the command line: all splits of a table by one name, and the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from egm.cli.printing import console
from egm.errors import EgmError
from egm.terminal import printable

if TYPE_CHECKING:
    from egm.evaluate import Evaluation
    from egm.records import Header

Suite = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="All splits of a table, and the table at the end: refcoco (the model card's eight), hard (the benchmarks "
        "that egm data benchmarks lists), all (both) or synthref.",
        show_default=False,
    ),
]


def check_source(suite: str | None, datasets: Iterable[str], *, scenes: int | None) -> None:
    """Refuse what says twice, or not at all, what is to be evaluated.

    Raises:
        EgmError: If that is so.
    """
    if suite is None and not list(datasets):
        raise EgmError("there is nothing to evaluate: name datasets, such as synthref/val, or a --suite")
    if suite is not None and list(datasets):
        raise EgmError("--suite names its splits itself: leave the datasets out, or the suite")
    if suite is not None and scenes is not None:
        raise EgmError(
            "--scenes takes what comes first, and a table's part is to stand for the whole: with --suite give --limit, "
            "which chooses pictures"
        )


def facts(summary: Mapping[str, Any], header: Header) -> dict[str, Any]:
    """What a suite adds to the numbers of a run: the average as the model card has it, and the choice of pictures."""
    from egm.datasets.dataset import Choice
    from egm.evaluate.suites import mean_accuracy

    choice = next((split["choice"] for split in header.datasets.values() if "choice" in split), None)
    return {
        "average": mean_accuracy([row["accuracy"] for row in summary["splits"].values()]),
        "choice": None if choice is None else str(Choice(**choice)),
    }


def folder_names(suite: str, pictures: int | None) -> tuple[str, ...]:
    """What the run folder of a suite is named after."""
    return (suite,) if pictures is None else (suite, f"{pictures}-pictures")


def print_table(result: Evaluation) -> None:
    """Print the tables of a run: on RefCOCO and the benchmarks beside the published rows."""
    from egm.report import grid
    from egm.report.run_tables import accuracy_grids
    from egm.report.runs import Run

    header = result.header
    run = Run(
        printable(header.model), header, result.records, {name: facts["n"] for name, facts in header.datasets.items()}
    )
    console().print()
    console().print(grid.terminal(*accuracy_grids([run], questions=True).values()))
