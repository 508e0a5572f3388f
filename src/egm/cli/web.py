"""`egm web`: a page in the browser, to ask models about pictures and to look through journals."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from egm.cli import options
from egm.terminal import printable


def web_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="egm-tiny, model folders, or hub names; egm-tiny, where no server is named either.",
            show_default=False,
        ),
    ] = None,
    server: options.Servers = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="A run folder that egm eval wrote, or a folder of such, to look through; repeatable.",
            show_default=False,
        ),
    ] = None,
    images: options.Images = None,
    codec: options.Codec = None,
    max_tokens: options.MaxTokens = None,
    logprobs: Annotated[
        bool, typer.Option("--logprobs", help="Ask servers for the probability of tokens, which some refuse.")
    ] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    host: Annotated[
        str, typer.Option(help="Address to listen at; another than this machine's takes a key in EGM_SERVER_KEY.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for any.")] = 7860,
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File that holds the key; else EGM_SERVER_KEY.", show_default=False),
    ] = None,
) -> None:
    """Serve a page to ask models about pictures in, side by side, and to look through journals in.

    A server of several models is given as NAME@URL. Only this machine can open the page, unless there is a key; nothing
    in it is fetched from elsewhere. Ctrl-C ends it.
    """
    from contextlib import ExitStack

    from egm.backends.base import GenerationSettings
    from egm.server.run import server_key
    from egm.web.serve import run_web

    key = server_key(key_file)
    options.refuse_no_folder(images)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    named = models or ([] if server else ["egm-tiny"])
    settings = None if max_tokens is None else GenerationSettings(max_new_tokens=max_tokens)

    from egm.web.models import open_models
    from egm.web.runs import RunShelf

    shelf = RunShelf(run or (), images)
    with ExitStack() as stack:
        run_web(
            lambda: stack.enter_context(
                open_models(
                    named, server or (), codec=codec, settings=settings, logprobs=logprobs, device=device, dtype=dtype
                )
            ),
            shelf,
            host=host,
            port=port,
            key=key,
            ready=lambda url: print(f"{printable(url)} (Ctrl-C ends it)", flush=True),
        )
