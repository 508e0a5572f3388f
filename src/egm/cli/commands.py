"""All commands under one name, and what becomes of their errors."""

from __future__ import annotations

import io
import os
import sys
from contextlib import nullcontext
from typing import Annotated

import typer

from egm._version import __version__
from egm.cli.bench import app as bench
from egm.cli.calibrate import calibrate_command
from egm.cli.codecs import codecs_command
from egm.cli.data import app as data
from egm.cli.demo import demo
from egm.cli.doctor import doctor
from egm.cli.download import download_command
from egm.cli.eval import app as evaluation
from egm.cli.eval_merge import merge_command
from egm.cli.export import export_command
from egm.cli.ground import ground
from egm.cli.group import Group
from egm.cli.grpo import grpo
from egm.cli.mcp import mcp_command
from egm.cli.models import app as models
from egm.cli.rationales import app as rationales
from egm.cli.report import report
from egm.cli.reproduce import reproduce
from egm.cli.score import score_command
from egm.cli.serve import serve_command
from egm.cli.sft import sft
from egm.cli.verl import verl
from egm.cli.web import web_command
from egm.errors import EgmError
from egm.extras import explained
from egm.progress import ask_for_progress

app = typer.Typer(
    name="egm",
    cls=Group,
    help="Ground phrases in images: an image and a phrase in, a box out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # importing what draws frames around help takes as long as all the rest of it
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


app.command("ground")(ground)
app.command("demo")(demo)
app.add_typer(data, name="data")
app.add_typer(rationales, name="rationales")
app.command("sft")(sft)
app.command("grpo")(grpo)
app.command("verl")(verl)
evaluation.command("merge")(merge_command)
app.add_typer(evaluation, name="eval")
app.command("calibrate")(calibrate_command)
app.command("download")(download_command)
app.command("serve")(serve_command)
app.command("web")(web_command)
app.command("mcp")(mcp_command)
app.add_typer(bench, name="bench")
app.command("doctor")(doctor)
app.command("codecs")(codecs_command)
app.command("score")(score_command)
app.command("report")(report)
app.command("export")(export_command)
app.command("reproduce")(reproduce)
app.add_typer(models, name="models")


def main() -> None:
    """Run the command line: what a user can mend is one line on standard error and exit code 2, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a phrase may hold what the terminal's encoding lacks
    try:
        # Of several processes of a launcher the first shows how far they are.
        with explained("this command"), ask_for_progress() if os.environ.get("RANK", "0") == "0" else nullcontext():
            app()
    except EgmError as error:
        _fail(str(error))
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or error}{where}: check the path, its permissions and the free space")
    except KeyboardInterrupt:  # before or after a command; within one, Typer says so
        sys.exit(130)


def _fail(message: str) -> None:
    from egm.terminal import printable, without_password

    # A server's words, or a file's name, may steer a terminal, and hold what was given as a URL.
    print("error:", without_password(printable(message)), file=sys.stderr)
    sys.exit(2)
