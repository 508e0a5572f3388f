"""`egm sft`: supervised fine-tuning from a recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from egm.cli.training import DryRun, Out, Recipe, Resume, Settings, keys_option, run_folder, say, say_checked


def sft(
    recipe: Recipe,
    out: Out = None,
    resume: Resume = False,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Train on images of RefCOCO's evaluation splits all the same.")
    ] = False,
    dry_run: DryRun = False,
    settings: Settings = None,
    keys: Annotated[bool, keys_option("egm.training.sft.recipe", "SFTRecipe")] = False,  # noqa: ARG001 - eager
) -> None:
    """Fine-tune a model on rationales, here or on each process of a launcher such as torchrun."""
    from egm.training.recipe import load_recipe
    from egm.training.sft.recipe import SFTRecipe
    from egm.training.sft.run import check_sft, run_sft

    loaded, run = load_recipe(SFTRecipe, recipe, settings), run_folder(out, recipe)
    if dry_run:
        say_checked(check_sft(loaded, run, allow_leak=allow_leak).samples)
        return
    say(run_sft(loaded, run, resume=resume, allow_leak=allow_leak), run, loaded.data.prompt)
