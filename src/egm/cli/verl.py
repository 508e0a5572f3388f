"""`egm verl`: reinforcement on boxes by verl, on one GPU or a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from egm.cli.printing import say_next
from egm.cli.training import DryRun, Out, Recipe, Resume, Settings, keys_option, run_folder, say, say_checked
from egm.terminal import shell_command

_CLUSTER = "Ray cluster: auto, HOST:PORT of its head or http://HOST:PORT of its job server; by default one of its own."


def verl(
    recipe: Recipe,
    out: Out = None,
    cluster: Annotated[str | None, typer.Option(help=_CLUSTER, metavar="ADDRESS", show_default=False)] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs of each node; all by default.", show_default=False)
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Nodes of a cluster; all that have GPUs by default.", show_default=False)
    ] = None,
    rollouts: Annotated[Literal["vllm", "sglang"], typer.Option(help="What draws completions.")] = "vllm",
    absolute: Annotated[
        bool, typer.Option("--absolute", help="Write absolute names of pictures, not the pictures, into the data.")
    ] = False,
    resume: Resume = False,
    skip_preflight: Annotated[
        bool, typer.Option("--skip-preflight", help="Do not look at 16 rollouts before training.")
    ] = False,
    dry_run: DryRun = False,
    show: Annotated[
        bool, typer.Option("--print", help="Print verl's configuration and command, and start nothing.")
    ] = False,
    settings: Settings = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--verl", help="A setting over verl's, such as trainer.test_freq=5.")
    ] = None,
    keys: Annotated[bool, keys_option("egm.training.grpo.recipe", "GRPORecipe")] = False,  # noqa: ARG001 - eager
) -> None:
    """Reinforce a model on the boxes that it answers with, by verl: recipes of egm grpo, on one GPU or a cluster."""
    from egm.training.grpo.recipe import GRPORecipe
    from egm.training.recipe import load_recipe
    from egm.training.verl.launch import job_command, submit
    from egm.training.verl.run import Launch, print_verl, run_verl

    loaded, run = load_recipe(GRPORecipe, recipe, settings), run_folder(out, recipe)
    if cluster is not None and cluster.startswith(("http://", "https://")):
        flags = {"--absolute": absolute, "--resume": resume, "--skip-preflight": skip_preflight, "--dry-run": dry_run}
        values = {"--out": run.resolve(), "--rollouts": rollouts, "--gpus": gpus, "--nodes": nodes}
        lists = {"--set": settings or [], "--verl": overrides or []}
        command = job_command(cluster, recipe, Path.cwd(), flags=flags, values=values, lists=lists)
        if show:
            print(shell_command(*command))
            return
        raise typer.Exit(submit(command))
    launch = Launch(rollouts, cluster, gpus, nodes, absolute, tuple(overrides or ()))
    if show:
        print(print_verl(loaded, run, launch, resume=resume), end="")
        say_next(f"the same command without --print, for {run}")
        return
    model = run_verl(loaded, run, launch, resume=resume, check=not skip_preflight, dry=dry_run)
    if dry_run:
        say_checked()
        return
    say(model, run, loaded.data.prompt)
