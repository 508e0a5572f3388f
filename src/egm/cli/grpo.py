"""`egm grpo`: reinforcement on boxes from a recipe."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer


def grpo(
    recipe: Annotated[Path, typer.Argument(help="YAML file, such as recipes/egm-tiny-grpo.yaml.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME-OF-RECIPE by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the run folder.")] = False,
    skip_preflight: Annotated[
        bool, typer.Option("--skip-preflight", help="Do not look at 16 rollouts before training.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting over the recipe's, such as optim.steps=100.")
    ] = None,
) -> None:
    """Reinforce a model on the boxes that it answers with."""
    from egm.training.grpo import run_grpo
    from egm.training.grpo_recipe import GRPORecipe
    from egm.training.recipe import load_recipe_as

    loaded = load_recipe_as(GRPORecipe, recipe, settings)
    folder = out if out is not None else Path("runs") / recipe.stem
    model = run_grpo(loaded, folder, resume=resume, check=not skip_preflight)
    if model is None:
        print(f"stopped by SIGTERM with a checkpoint: go on with --resume --out {folder}", file=sys.stderr)
        raise typer.Exit(128 + signal.SIGTERM)
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        print(model)
