"""`egm reproduce`: longer thinking against a bigger model, from one recipe to a report."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egm.cli import options
from egm.cli.printing import console, plain_table, say_next
from egm.cli.training import keys_option
from egm.errors import DataError, EgmError
from egm.terminal import printable, shell_command, spaced

if TYPE_CHECKING:
    from rich.table import Table

    from egm.reproduce.run import ReproductionPlan


_AGAIN = ("settings", "ablation", "parallel", "gpus", "seconds")
"""Options that go on with the same recipe in the same way."""
_LEFT = 75
"""Exit code where time was over, as of sysexits.h: try again."""


def reproduce(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="YAML file, such as recipes/reproduce.yaml.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Folder of it all; runs/NAME-OF-RECIPE by default.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARM", help="Train and evaluate this arm alone, or one seed of it; repeatable.", show_default=False
        ),
    ] = None,
    ablation: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Add an ablation of the recipe; repeatable.", show_default=False),
    ] = None,
    until: Annotated[str, typer.Option(help="Last stage: train, evaluate, latency or report.")] = "report",
    parallel: Annotated[int, typer.Option(help="Arms at once, each on a GPU of its own.")] = 1,
    seconds: Annotated[
        int | None,
        typer.Option(min=0, help="Tell what runs then to end, and begin nothing more: the same command goes on later."),
    ] = None,
    gpus: Annotated[int, typer.Option(help="GPUs that a training is spread over.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting over the recipe's, such as evaluate.scenes=100.")
    ] = None,
    keys: Annotated[bool, keys_option("egm.reproduce.recipe", "ReproduceRecipe")] = False,  # noqa: ARG001 - eager
) -> None:
    """Train small and larger models at equal data, evaluate and time them, and hold the paper's claims against it.

    The same command goes on where it was interrupted, however that was. Exit code 1 if an arm failed: the others are
    reported all the same. With --seconds it is 75 where something is left, which the last line names.
    """
    from egm.reproduce.progress import Progress
    from egm.reproduce.recipe import ReproduceRecipe
    from egm.reproduce.run import make_plan, run
    from egm.training.recipe import load_recipe

    loaded = load_recipe(ReproduceRecipe, recipe, settings)
    folder = out if out is not None else Path("runs") / recipe.stem
    plan = make_plan(loaded, folder, only=only or (), ablations=ablation or (), until=until)
    if dry_run:
        _print_plan(plan, parallel, gpus)
        return
    try:
        with Progress() as progress:
            outcome = run(plan, parallel=parallel, gpus=gpus, seconds=seconds, progress=progress)
    except KeyboardInterrupt as stop:
        from egm.processes import Terminated

        print(f"stopped: the same command goes on in {spaced(folder)}", file=sys.stderr)
        number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        raise typer.Exit(128 + number) from None
    failed = outcome.failed
    if plan.reaches("report") and not outcome.left:
        try:
            _report(plan)
        except DataError:  # where all has failed there is nothing to report, and that is not what went wrong
            if not failed:
                raise
    else:
        print(spaced(folder))
    if failed:
        for name, why in failed.items():
            print("error:", printable(f"{name}: {why}"), file=sys.stderr)
    if outcome.left:
        left = ", ".join(f"{name} ({how})" for name, how in outcome.left.items())
        print(f"left: {left}: the same command goes on", file=sys.stderr)
    if failed or outcome.left:
        raise typer.Exit(1 if failed else _LEFT)
    names = _AGAIN if plan.reaches("report") else (*_AGAIN, "only")
    say_next(_next_step(plan, recipe, options.given_again(context, *names)))


def _report(plan: ReproductionPlan) -> None:

    from egm.report.grid import terminal
    from egm.reproduce.report import write_report

    text, table, path = write_report(plan)
    out = console()
    out.print(terminal(table))
    out.print("\n".join(map(spaced, text.split("\n"))), markup=False)
    print(spaced(path))


def _next_step(plan: ReproductionPlan, recipe: Path, given: Sequence[str]) -> str:
    """What is left of a recipe, or else what becomes of its models."""
    again = ("egm", "reproduce", recipe, "--out", plan.out, *given)
    if not plan.reaches("report"):
        return shell_command(*again)
    if left := sorted(plan.recipe.ablations.keys() - plan.arms.keys()):
        return shell_command(*again, "--ablation", left[0])
    return f"{shell_command('egm', 'models', 'export', plan.out / 'ARM' / 'train')} of the arm that you want"


def _print_plan(plan: ReproductionPlan, parallel: int, gpus: int) -> None:
    from rich.text import Text

    from egm.reproduce.jobs import places_for

    try:
        places = places_for(plan.recipe.device, parallel=parallel, gpus=gpus)
        device = "the CPU" if not places[0] else "; ".join(f"GPU {place}" for place in places)
    except EgmError as error:  # a plan may be made where it will not run
        device = f"not here ({error})"
    out = console()
    out.print(_arms_table(plan))
    asked, timed = plan.recipe.evaluate, plan.recipe.latency
    scenes = "all scenes" if asked.scenes is None else f"{asked.scenes} scenes each"
    lines = [
        f"evaluate: {', '.join(asked.splits)}; {scenes}, {asked.batch_size} at once",
        f"latency: {timed.requests} requests one at a time, {timed.batches} batches of {timed.batch_size}, all arms in "
        "one run",
        f"device: {device}; folder: {plan.out}; until: {plan.until}",
    ]
    if left := sorted(plan.recipe.ablations.keys() - plan.arms.keys()):
        lines.append(f"ablations not asked for: {', '.join(left)}")
    for line in lines:
        out.print(Text(spaced(line)), soft_wrap=True)


def _arms_table(plan: ReproductionPlan) -> Table:
    from rich.text import Text

    from egm.models.presets import size_text

    table = plain_table("arm", "stage", "from", "answers", "parameters", "steps", "samples", names=4)
    table.add_column("to do")
    for name, training in plan.trainings.items():
        left = [stage for stage in ("train", "evaluate") if plan.reaches(stage) and not plan.is_done(name, stage)]
        todo, arm = ", ".join(left) or "nothing: done", training.arm
        table.add_row(
            Text(name),
            arm.recipe.stage,
            Text(training.recipe.model.name),
            {True: "after thinking", False: "directly", None: ""}[arm.thinks],
            "" if arm.parameters is None else size_text(arm.parameters),
            "" if arm.steps is None else f"{arm.steps:,}",
            "" if arm.samples is None else f"{arm.samples:,}",
            Text(todo if name in plan.chosen else "not in this call"),
        )
    return table
