"""`egm rationales merge`: the shards of a run of rationales as one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from egm.cli import options
from egm.cli.printing import note, say_next
from egm.terminal import shell_command, spaced


def merge_rationales_command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders of all shards, in any order.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Run folder of the whole.", show_default=False)],
    allow_partial: options.AllowPartial = False,
    as_json: options.AsJson = False,
) -> None:
    """Make one journal of shards, and look for near duplicates across them.

    The command of the whole run, without --shard and with the same --out, goes on with it: it asks again where a
    shard's rationale says what another shard's does, and what is missing, and writes training data and card. The shards
    must be all that there are, finished, and of one command; with --allow-partial, what is missing is said. Exit code 0
    if they are merged, 2 if they do not belong together.
    """
    from egm.rationales.merge import merge_rationales

    merged = merge_rationales(runs, out, allow_partial=allow_partial)
    if as_json:
        numbers = {"samples": merged.samples, "kept": merged.kept, "alike": merged.alike}
        print(json.dumps({"folder": str(out), **numbers, "remarks": merged.remarks}))
    else:
        alike = f"; {merged.alike:,} were dropped as they say what other shards' do" if merged.alike else ""
        print(f"kept {merged.kept:,} of {merged.samples:,} samples{alike}")
        print(f"journal: {spaced(out)}")
    for remark in merged.remarks:
        note(remark)
    say_next(f"the command of a shard, without --shard and with {shell_command('--out', out)}")
