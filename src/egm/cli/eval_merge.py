"""`egm eval merge`: the shards of an evaluation as one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from egm.cli import options
from egm.cli.printing import note
from egm.cli.run_figures import tell_run


def merge_command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders of all shards, in any order.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Run folder of the whole.", show_default=False)],
    allow_partial: options.AllowPartial = False,
    max_errors: Annotated[
        float, typer.Option(help="Share of samples that may have ended in an error.", show_default=True)
    ] = 0.05,
    as_json: options.AsJson = False,
) -> None:
    """Make one run of shards: journal and numbers are those of the run that was not cut.

    The shards must be all that there are, finished, and of the same model, settings and data. With --allow-partial,
    what is missing is said, and the command of the whole run, with the same --out, goes on with it. Exit code 0 if the
    run is merged, 1 if too many samples ended in an error, 2 if the shards do not belong together.
    """
    from egm.evaluate.merge import merge_runs
    from egm.evaluate.suites import SUITES

    merged = merge_runs(runs, out, allow_partial=allow_partial, max_errors=max_errors)
    suite = tuple(merged.header.datasets) in SUITES.values()
    for remark in merged.remarks:
        note(remark)
    tell_run(merged, out, suite=suite, as_json=as_json)
