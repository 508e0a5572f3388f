"""`egm grpo`: reinforcement on boxes from a recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from egm.cli.training import DryRun, Out, Recipe, Resume, Settings, keys_option, run_folder, say, say_checked


def grpo(
    recipe: Recipe,
    out: Out = None,
    resume: Resume = False,
    skip_preflight: Annotated[
        bool, typer.Option("--skip-preflight", help="Do not look at 16 rollouts before training.")
    ] = False,
    dry_run: DryRun = False,
    settings: Settings = None,
    keys: Annotated[bool, keys_option("egm.training.grpo.recipe", "GRPORecipe")] = False,  # noqa: ARG001 - eager
) -> None:
    """Reinforce a model on the boxes that it answers with."""
    from egm.training.grpo.recipe import GRPORecipe
    from egm.training.grpo.run import check_grpo, run_grpo
    from egm.training.recipe import load_recipe

    loaded, run = load_recipe(GRPORecipe, recipe, settings), run_folder(out, recipe)
    if dry_run:
        check_grpo(loaded, run, check=not skip_preflight)
        say_checked()
        return
    say(run_grpo(loaded, run, resume=resume, check=not skip_preflight), run, loaded.data.prompt)
