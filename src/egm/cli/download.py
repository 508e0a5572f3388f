"""`egm download`: fetch a model from the Hugging Face Hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from egm.cli.printing import say_next
from egm.terminal import shell_command, spaced


def download_command(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="OWNER/NAME on the Hub, or NAME of a known model.", show_default=False),
    ],
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to put it into; by default the Hub's cache.")
    ] = None,
) -> None:
    """Fetch a model from the Hugging Face Hub, look it through, and say where it lies.

    In the Hub's cache, transformers, vLLM and SGLang find it by its name too. What is here already is not fetched
    again, and what broke off goes on: run the same command. Only configurations, tokenizer, chat template and
    safetensors are fetched. `egm models` lists the models that are known by name.
    """
    from egm.publish.download import download

    found = download(model, to=to)
    print(spaced(found.folder))
    print(f"{found.name}, {found.model_type}: {found.size / 1e9:.2f} GB in {found.files} files, whole", file=sys.stderr)
    asked = found.name if to is None else found.folder
    say_next(shell_command("egm", "ground", "IMAGE", "PHRASE", "--model", asked))
