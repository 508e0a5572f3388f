"""`egm serve`: an engine, started for grounding and checked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from egm.cli import options
from egm.cli.printing import note, say_next
from egm.cli.served import announce, watched
from egm.codecs import DEFAULT_CODEC
from egm.errors import BackendError
from egm.terminal import printable, shell_command, spaced

_POLL = 1.0


def serve_command(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="egm-tiny, a model folder, or a model of the Hub.", show_default=False),
    ] = "egm-tiny",
    passed_on: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- OPTION", help="Options of the engine itself, which count.", show_default=False),
    ] = None,
    engine: options.Engine = "auto",
    aim: options.Aim = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than this machine's takes a key in EGM_SERVER_KEY.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 30000,
    served_model_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name that clients ask for; by default the model's.", show_default=False),
    ] = None,
    quantization: Annotated[
        str | None, typer.Option(metavar="fp8", help="Quantise weights as they are loaded.", show_default=False)
    ] = None,
    speculation: Annotated[bool, typer.Option("--speculation", help="Draft tokens by n-grams.")] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Log of the engine; by default a temporary file, which stays.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Longest wait until it is ready, in seconds.")] = 1800.0,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the command line, a reason for each part, and start nothing.")
    ] = False,
) -> None:
    """Serve a model by SGLang, vLLM, transformers or EGM's own server, with what grounding wants.

    Without --engine, the first of SGLang and vLLM that is installed where there is a GPU, else EGM's own. The server
    is announced once it has grounded a phrase, and ends with this command, whatever ends that. Versions that are known
    to move boxes are refused. Exit code 0 if a signal ended it, 1 if the engine ended by itself, 2 if it did not start.
    """
    from egm.processes import interruptible
    from egm.serve import plan_server, serve

    words = list(passed_on or ())
    if model.startswith("-"):  # no model stands before --
        model, words = "egm-tiny", [model, *words]
    how: dict[str, Any] = {
        "aim": aim,
        "host": host,
        "port": port,
        "served_model_name": served_model_name,
        "quantization": quantization,
        "speculation": speculation,
        "device": device,
        "dtype": dtype,
        "passed_on": words,
    }
    if explain:
        plan = plan_server(model, engine, **how)
        for line in plan.notes:
            note(line)
        print("\n".join(map(spaced, plan.explain().split("\n"))))
        return
    try:
        with (
            interruptible(),
            watched() as waiting,
            serve(model, engine, **how, log=log, seconds=timeout, planned=announce, waiting=waiting) as server,
        ):
            waiting(0.0, "")
            version = f" {server.version}" if server.version else ""
            print(f"{printable(server.model)} at {server.url}/v1 by {server.engine}{version}")
            print(f"checked: {printable(server.answer)}; Ctrl-C ends it", flush=True)
            # Behind a server, a model is taken for one of the usual convention.
            asked = ["--server", server.url, *([] if server.codec == DEFAULT_CODEC else ["--codec", server.codec])]
            commands = (("ground", "IMAGE", "PHRASE"), ("eval", "DATASET"))
            say_next(*(shell_command("egm", *command, *asked) for command in commands))
            while not server.wait(_POLL):
                pass
            print("error:", printable(server.ended or ""), file=sys.stderr)
            raise typer.Exit(1)
    except KeyboardInterrupt:
        return
    except BackendError as error:
        raise BackendError(f"not started: {error}") from None
