"""What `egm sft` and `egm grpo` are told alike, the keys of their recipes, and how they say where the model is."""

from __future__ import annotations

import importlib
import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from egm.cli.printing import say_next
from egm.terminal import shell_command, spaced

Recipe = Annotated[Path, typer.Argument(help="YAML file; recipes/ holds some.", show_default=False)]
Out = Annotated[Path | None, typer.Option(help="Run folder; runs/NAME-OF-RECIPE by default.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the run folder.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check recipe, data, model and run folder; train nothing.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting over the recipe's, such as optim.steps=100.")
]


def keys_option(module: str, recipe: str) -> Any:
    """Make the option `--keys`, which prints the keys of a recipe and needs none.

    Args:
        module: Where the class is that reads the recipe; imported only when it is asked for.
        recipe: Its name.
    """

    def show(wanted: bool) -> None:
        if not wanted:
            return
        from egm.training.keys import key_listing

        columns = shutil.get_terminal_size().columns
        print(key_listing(getattr(importlib.import_module(module), recipe), width=max(40, min(columns, 100))), end="")
        raise typer.Exit

    meaning = "Print every key of a recipe with its type, default and meaning."
    return typer.Option("--keys", callback=show, is_eager=True, help=meaning)


def run_folder(out: Path | None, recipe: Path) -> Path:
    """Return the run folder: `--out`, or one named after the recipe."""
    return out if out is not None else Path("runs") / recipe.stem


def say_checked(samples: int | None = None) -> None:
    """Print that nothing wrong was found, and in how many samples of files."""
    of = f" in {samples:,} samples" if samples else ""
    print(f"nothing wrong was found{of}; without --dry-run it is trained")


def say(model: Path | None, run: Path, prompt: object = None) -> None:
    """Print the model's folder and the next step, or that SIGTERM ended the run early; of several processes the first.

    Raises:
        Exit: With 143, as a shell has it, in the latter case.
    """
    from egm.training.shared.processes import is_first

    if model is not None:
        if is_first():
            print(spaced(model))
            asked = model if model.name == "model" else run / "export"
            style = ("--prompt", prompt) if isinstance(prompt, str) else ()
            export = shell_command("egm", "models", "export", run)
            steps = [export, shell_command("egm", "eval", "DATASET", "--model", asked, *style)]
            say_next(*(steps if asked != model else steps[::-1]))
        return
    if is_first():
        again = spaced(shell_command("--resume", "--out", run))
        print(f"stopped by SIGTERM with a checkpoint: go on with {again}", file=sys.stderr)
    raise typer.Exit(128 + signal.SIGTERM)
