"""`egm mcp`: grounding as tools of the Model Context Protocol."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from egm.cli import options
from egm.cli.opened import opened_grounder
from egm.cli.printing import say_next
from egm.terminal import shell_command, spaced

_ASKING = ("model", "server", "codec", "prompt", "gate", "device", "dtype", *options.SETTINGS)


@options.with_settings
def mcp_command(
    context: typer.Context,
    images: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the pictures that may be asked about.", show_default=False)
    ],
    model: options.Model = None,
    server: options.Server = None,
    codec: options.Codec = None,
    *,
    settings: options.Settings,
    prompt: options.Prompt = None,
    gate: options.GateFile = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
) -> None:
    """Let an assistant ground: a server of the Model Context Protocol over standard input and output.

    Its tools are ground, count and check. They open pictures in DIR alone, whatever is asked, and fetch nothing. It
    ends with its client.
    """
    from egm.doors.mcp import build_mcp_server
    from egm.extras import need

    need("egm mcp", "mcp")
    options.refuse_no_folder(images, "DIR")
    asking: dict[str, Any] = {"codec": codec, "settings": settings, "prompt": prompt, "gate": gate}
    with opened_grounder(model, server=server, device=device, dtype=dtype, **asking) as (grounder, _):
        about = spaced(f"{grounder.backend.model} about the pictures in {images}")
        print(f"ready on standard input and output: {about}", file=sys.stderr)
        if sys.stdin.isatty():
            # It is started in another folder.
            context.params |= {
                "model": str(Path(model).absolute()) if model and Path(model).exists() else model,
                "gate": None if gate is None else gate.absolute(),
            }
            command = shell_command("egm", "mcp", images.absolute(), *options.given_again(context, *_ASKING))
            say_next(f"let an assistant start this command: {command}; Ctrl-C ends it")
        door = build_mcp_server(grounder, images)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # else Ctrl-C would wait for the client's next line
        door.run("stdio")
