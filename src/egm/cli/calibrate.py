"""`egm calibrate`: fit the gate that lets a model think only where it pays."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from egm.cli import options
from egm.cli.opened import opened_grounder
from egm.cli.printing import console, note, say_next
from egm.cli.splits import open_splits
from egm.codecs import DEFAULT_CODEC, get_codec
from egm.errors import EgmError, MissingExtraError
from egm.progress import progress_task
from egm.terminal import printable, shell_command, spaced

if TYPE_CHECKING:
    from egm.calibrate import Calibration
    from egm.grounder import Grounder
    from egm.thinking import Gate

_USUAL = "synthref/calibration"
_OF_ANSWERS = ("direct", "thinking", "out", "points", "confidence", "as_json")


@partial(options.with_settings, left_out=("think", "votes", "stop_confidence"))
def calibrate_command(
    context: typer.Context,
    datasets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DATASET...]", help=f"What to ask about, as egm eval; by default {_USUAL}.", show_default=False
        ),
    ] = None,
    model: options.Model = None,
    server: options.Servers = None,
    codec: options.Codec = None,
    direct: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="A run of egm eval with --think never, in place of asking.", show_default=False
        ),
    ] = None,
    thinking: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="The run of the same questions with --think always.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the runs, the gate, table and picture.")] = Path(
        "runs/calibrate"
    ),
    points: Annotated[float, typer.Option(help="Most accuracy that the gate may cost, in points.")] = 0.5,
    confidence: Annotated[float, typer.Option(help="With which that is to hold.")] = 0.95,
    images: options.Images = None,
    data_root: options.DataRoot = None,
    allow_partial: options.AllowPartial = False,
    scenes: options.Scenes = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first samples of each.", show_default=False)
    ] = None,
    concurrency: options.Concurrency = None,
    retry_errors: options.RetryErrors = False,
    *,
    settings: options.Settings,
    prompt: options.Prompt = None,
    cut_tail: options.CutTail = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Fit the gate that decides whether a model thinks (--think auto --gate FILE).

    Every question is asked twice, directly and with reasoning, into DIR/direct and DIR/thinking, which the same command
    goes on with. The gate takes the direct answer where the model is sure enough of it: so often as saves most tokens
    while accuracy stays, with --confidence, at most --points below that of always thinking, on pictures such as these.
    DIR/gate.json holds it, DIR/frontier.csv accuracy against tokens for every threshold. Exit code 1 if no threshold
    saves tokens within the bound; its gate then always thinks.
    """
    from egm.backends.openai.connection import server_url
    from egm.calibrate import calibrate, check_enough
    from egm.evaluate.plan import plan_samples
    from egm.stats import codes

    if (direct is None) != (thinking is None):
        raise EgmError("--direct and --thinking are two runs of the same questions: give both, or neither")
    for url in server or ():
        server_url(url)  # refused before splits are opened, which takes longer
    if direct is None or thinking is None:
        places: dict[str, Any] = {"images": images, "data": data_root, "allow_partial": allow_partial}
        splits = open_splits(datasets or [_USUAL], **places, scenes=scenes, limit=limit)
        pictures = codes([item.image for item in plan_samples(splits)[0]])
        check_enough(pictures, points=points, confidence=confidence)  # before anything is asked
        asking: dict[str, Any] = {"settings": settings, "prompt": prompt, "cut_tail": cut_tail}
        asking |= {"codec": codec, "device": device, "dtype": dtype, "concurrency": concurrency}
        with opened_grounder(model, server=server, logprobs=True, **asking) as (grounder, facts):
            _ask(splits, grounder, out, facts(), retry_errors=retry_errors)
        direct, thinking = out / "direct", out / "thinking"
    else:
        said = "is for asking, and --direct and --thinking are answers that are there: leave it out"
        options.refuse_given(context, _OF_ANSWERS, said)
    with progress_task("choosing a threshold"):
        gate, found = calibrate(direct, thinking, points=points, confidence=confidence)
    _write(gate, found, out)
    if as_json:
        print(gate.to_json(), end="")
    else:
        _print(found, out)
    if found.chosen is None:
        raise typer.Exit(1)
    say_next(shell_command(*_next_command(context, gate, out)))


def _next_command(context: typer.Context, gate: Gate, out: Path) -> list[str]:
    """The command that goes by the gate, and asks as it was fitted, which it would refuse to decide otherwise."""
    from egm.backends.checkpoint import EMBEDDED
    from egm.thinking import GATE_NAME

    words = ["egm", "eval", "DATASET", *options.given_again(context, "server")]
    words += ["--model", gate.model] if gate.model != EMBEDDED else []
    words += options.given_again(context, "codec")
    if context.params["direct"] is not None and gate.codec["name"] != DEFAULT_CODEC:  # runs do not say what gave it
        words += ["--codec", gate.codec["name"]]
    words += _asking(gate, behind_server=bool(context.params["server"]))
    words += options.given_again(context, "device", "dtype")
    return [*words, "--think", "auto", "--gate", str(out / GATE_NAME)]


def _asking(gate: Gate, *, behind_server: bool) -> list[str]:
    """Options of `egm eval` that ask as the gate was fitted, where that is not how it asks by default."""
    settings, expects, words = gate.settings, gate.facts["expects"], list[str]()
    if gate.prompt["style"] != get_codec(gate.codec["name"]).prompts[0]:
        words += ["--prompt", gate.prompt["style"]]
    if len(expects) == 1 and expects != ["one"]:
        words += ["--expect", expects[0]]
    sampled, budget = settings["temperature"] > 0, settings["thinking_budget"]
    usual = options.max_tokens_by_default(None if behind_server else gate.model, sample=sampled, budget=budget)
    words += ["--sample"] if sampled else []
    words += ["--max-tokens", str(settings["max_new_tokens"])] if settings["max_new_tokens"] != usual else []
    words += ["--votes", str(settings["votes"])] if settings["votes"] > 1 else []
    words += ["--thinking-budget", str(budget)] if budget is not None else []
    return words + (["--cut-tail"] if settings["stop"] else [])


def _ask(splits: Any, grounder: Grounder, out: Path, engine: dict[str, Any], *, retry_errors: bool) -> None:
    from egm.evaluate import evaluate
    from egm.grounder import Grounder

    shared: dict[str, Any] = {"prompt": grounder.prompt, "batch_size": grounder.batch_size}
    never = Grounder(grounder.backend, grounder.codec, settings=replace(grounder.settings, think="never"), **shared)
    for name, asks in (("direct", never), ("thinking", grounder)):
        note(f"asking {'directly' if name == 'direct' else 'with reasoning'}, into {out / name}")
        try:
            result = evaluate(splits, asks, out / name, engine=engine, retry_errors=retry_errors)
        except KeyboardInterrupt:
            print(f"interrupted: {spaced(out)} keeps the answers, and the same command goes on", file=sys.stderr)
            raise typer.Exit(130) from None
        if result.stopped is not None:
            raise EgmError(f"{result.stopped} (--retry-errors)")


def _write(gate: Gate, found: Calibration, out: Path) -> None:
    from egm.calibrate.frontier import frontier_figure, frontier_grid
    from egm.files import write_bytes, write_text
    from egm.report.grid import csv_text
    from egm.thinking import GATE_NAME

    out.mkdir(parents=True, exist_ok=True)
    write_text(out / GATE_NAME, gate.to_json())
    write_text(out / "frontier.csv", csv_text(frontier_grid(found)))
    try:
        for suffix, content in frontier_figure(found).items():
            write_bytes(out / f"frontier{suffix}", content)
    except MissingExtraError as error:  # the gate is there all the same
        note(str(error))


def _print(found: Calibration, out: Path) -> None:
    from egm.calibrate.frontier import frontier_grid
    from egm.report import grid
    from egm.thinking import GATE_NAME

    screen = console()
    screen.print(grid.terminal(frontier_grid(found)))
    chosen = found.chosen
    if chosen is None:
        said = "no threshold saves tokens within the bound: the gate always thinks"
    else:
        share = found.saved_reasoning
        reasoning = "" if share is None else f" ({100 * share:.1f} % of those of reasoning)"
        lost = round(100 * chosen.loss.value, 2)
        said = (
            f"thinks about {100 * (1 - chosen.taken):.1f} % of the questions and saves {100 * found.saved:.1f} % of "
            f"the tokens{reasoning}, at a {'gain' if lost < 0 else 'loss'} of {abs(lost):.2f} points"
        )
    screen.print(f"{said}; gate: {printable(spaced(out / GATE_NAME))}", soft_wrap=True, markup=False)
