"""`egm sft`: supervised fine-tuning from a recipe."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer


def sft(
    recipe: Annotated[Path, typer.Argument(help="YAML file, such as recipes/egm-tiny.yaml.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME-OF-RECIPE by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the run folder.")] = False,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Train on images of RefCOCO's evaluation splits all the same.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting over the recipe's, such as optim.steps=100.")
    ] = None,
) -> None:
    """Fine-tune a model on rationales, here or on each process of a launcher such as torchrun."""
    from egm.training.recipe import load_recipe
    from egm.training.sft import run_sft

    loaded = load_recipe(recipe, settings)
    place = out if out is not None else Path("runs") / recipe.stem
    folder = run_sft(loaded, place, resume=resume, allow_leak=allow_leak)
    if folder is None:
        print(f"stopped by SIGTERM with a checkpoint: go on with --resume --out {place}", file=sys.stderr)
        raise typer.Exit(128 + signal.SIGTERM)
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        print(folder)
