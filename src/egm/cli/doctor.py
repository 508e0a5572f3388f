"""`egm doctor`: is this engine right, and which rows of the toolkit can these versions run?"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from egm.cli import options
from egm.cli.printing import console, figure, note, plain_table, say_next
from egm.cli.served import refuse_two_servers, started
from egm.codecs import DEFAULT_CODEC
from egm.errors import EgmError
from egm.terminal import printable, shell_command

if TYPE_CHECKING:
    from egm.doctor import Examination, Recording, Toolkit


def doctor(
    server: options.Server = None,
    serve: options.Serve = None,
    aim: options.Aim = None,
    model: options.Model = None,
    codec: options.Codec = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL|FILE",
            help="What the server should answer as: a checkpoint, which is asked in this process, or a recording of "
            "it. By default egm-tiny's recording, where that is served; with --serve, the same checkpoint.",
            show_default=False,
        ),
    ] = None,
    record: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Record a checkpoint's answers, to be a reference.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --record, the file to write.", show_default=False)
    ] = None,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate/--no-simulate",
            help="With --record, record where known defects would change the answers too, by which they are named: "
            "takes torch, and several times as long.",
        ),
    ] = True,
    picture: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Ask about this built-in picture, and not all 24; repeatable.", show_default=False
        ),
    ] = None,
    as_json: options.AsJson = False,
    *,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
) -> None:
    """Say whether an engine answers as its model does; without a server, what the installed versions can run.

    A server is asked about 24 built-in pictures, and held against the same checkpoint: its prompts, texts, boxes,
    log-probabilities and reasoning, and whether it answers the same again, sixteen at once, and not streamed.
    Rounding is told from displacement by a rule that docs/doctor.md states, and a known defect is named.

    Exit code 0 if it is right, 1 if it is wrong, 2 if that could not be told or the input is bad. Without a server: 1
    if packages that are installed exclude each other.
    """
    if record is not None:
        if server is not None or serve is not None or reference is not None or out is None:
            raise EgmError("--record takes --out FILE, and neither --server nor --serve nor --reference")
        _record(record, out, codec=codec, device=device, dtype=dtype, pictures=picture, simulate=simulate)
        return
    if out is not None:
        raise EgmError("--out is for --record MODEL: leave it out")
    refuse_two_servers(serve, aim, server)
    if server is None and serve is None:
        if reference is not None or model is not None:
            raise EgmError("there is no engine to examine: give --server URL, or --serve ENGINE")
        _toolkit(as_json)
        return
    from egm.doctor import examine_server

    asked: dict[str, Any] = {"codec": codec, "device": device, "dtype": dtype}
    with ExitStack() as stack:
        held: str | Recording | None = reference
        if serve is not None:
            held = _reference(model, reference, **asked)  # before an engine takes the memory
            running = stack.enter_context(started(model, serve, aim, device=device, dtype=dtype))
            server, model = running.url, running.model
            asked["api_key"] = running.key or "none"
        assert server is not None
        found = examine_server(server, model, reference=held, pictures=picture, **asked)
    _print(found, as_json)
    if found.diagnosis.verdict == 0 and serve is None:
        words = ["--server", server, *([] if model is None else ["--model", model])]
        words += [] if found.recording.codec == DEFAULT_CODEC else ["--codec", found.recording.codec]
        say_next(shell_command("egm", "eval", "DATASET", *words))
    raise typer.Exit(int(found.diagnosis.verdict))


def _reference(model: str | None, reference: str | None, **options: Any) -> Recording | None:
    """What an engine that is about to be started is held against."""
    from egm.backends.checkpoint import EMBEDDED
    from egm.doctor import find_reference

    if reference is None and model in (None, EMBEDDED):
        return None  # the recording that comes with the package
    return find_reference(model if reference is None else reference, served=model or EMBEDDED, **options)


def _record(model: str, out: Path, **options: Any) -> None:
    from egm.doctor import record as make
    from egm.doctor import write_recording

    if not out.parent.is_dir():
        raise EgmError(f"there is no folder {str(out.parent)!r} to write {out.name!r} into: make it first")
    recording = make(model, **options)
    write_recording(recording, out)
    print(printable(f"{out}: {len(recording.answers)} answers of {recording.model}, weights {recording.weights}"))
    # A recording of some pictures answers for these alone.
    pictures = [word for name in options["pictures"] or () for word in ("--picture", name)]
    say_next(shell_command("egm", "doctor", "--server", "URL", "--reference", out, *pictures))


def _toolkit(as_json: bool) -> None:
    from egm.doctor import examine_toolkit

    found = examine_toolkit()
    if as_json:
        print(json.dumps(found.to_dict()))
    else:
        _print_toolkit(found)
    raise typer.Exit(1 if found.conflicts else 0)


def _print_toolkit(found: Toolkit) -> None:
    from rich.text import Text

    table = plain_table("row", "runs", "for", names=3)
    for row in found.rows:
        table.add_row(row.name, {"yes": "yes", "missing": "-", "no": "no"}[row.state], row.use)
    shown = ("egm", "python", "torch", "transformers", "trl", "vllm", "sglang", "verl")
    versions = ", ".join(f"{name} {found.versions[name]}" for name in shown if name in found.versions)
    out = console()
    out.print(printable(versions), soft_wrap=True)
    machine = f"GPU {found.gpu}" if found.gpu else "no NVIDIA GPU"
    driver = f", driver {found.driver}" if found.driver else ""
    cuda = f", torch built for CUDA {found.cuda}" if found.cuda else ""
    out.print(printable(machine + driver + cuda), soft_wrap=True)
    out.print(table)
    for row in found.rows:
        if row.state != "yes":
            out.print(Text(printable(f"{row.name}: {'; '.join(row.problems)}: {row.advice}")), soft_wrap=True)


def _print(found: Examination, as_json: bool) -> None:
    from rich.text import Text

    from egm.doctor.defects import known_defects

    if as_json:
        print(json.dumps(found.to_dict()))
        return
    diagnosis, out = found.diagnosis, console()
    table = plain_table("picture", "size", "text", "lead", "prompt", "IoU", "box", "expected", names=3)
    for one in diagnosis.comparisons:
        table.add_row(
            one.picture,
            "{} x {}".format(*one.size),
            "the same" if one.place is None else f"parts at {one.place}",
            figure(one.lead, 2),
            "-" if one.prompt_tokens is None else f"{one.prompt_tokens:+d}",
            figure(one.iou, 2),
            *("-" if box is None else " ".join(f"{value:.0f}" for value in box) for box in (one.box, one.expected)),
        )
    engine = " ".join(filter(None, (found.observation.engine.name, found.observation.engine.release)))
    against = f"{found.recording.model} ({found.recording.engine}, weights {found.recording.weights})"
    out.print(Text(printable(f"{found.observation.model} by {engine}, against {against}")), soft_wrap=True)
    out.print(table)
    for text in diagnosis.notes:
        note(text)
    words = {0: "right", 1: "wrong", 2: "could not tell"}[int(diagnosis.verdict)]
    out.print(Text(printable(f"{words}: {diagnosis.reason}")), soft_wrap=True)
    for finding in diagnosis.findings:
        defect = known_defects()[finding.name]
        sources = f" ({', '.join(defect.sources)})" if defect.sources else ""
        for line in (f"{defect.name}: {finding.seen}", f"  what to do: {defect.advice}{sources}"):
            out.print(Text(printable(line)), soft_wrap=True)
    sys.stdout.flush()
