"""`egm eval`: ask a model about datasets, score it, and keep a journal that can be gone on with."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from egm.cli import options
from egm.cli import suite as suites
from egm.cli.embedded import dataset_notice
from egm.cli.group import DefaultGroup
from egm.cli.opened import Facts, opened_grounder
from egm.cli.run_figures import tell_run
from egm.cli.served import refuse_two_servers
from egm.cli.splits import check_pictures, open_splits
from egm.errors import EgmError
from egm.terminal import spaced

if TYPE_CHECKING:
    from egm.codecs import Codec
    from egm.grounder import Grounder
    from egm.types import Sample


class EvalGroup(DefaultGroup):
    """`egm eval` as it was before there was `egm eval merge`, with its own help and its own errors."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Take all that does not begin with the name of a command for the first one's."""
        if not args or args[0] in self._HELP:
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=EvalGroup, help="Ask a model about datasets, score it, and put shards together.")


@app.command("run")
@options.without(
    ("--data", str, "give the folder of the annotations with --data-root"),
    ("--instruct", bool, "--codec qwen3_vl_instruct says it"),
)
@options.with_settings
def eval_command(
    datasets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DATASET...]", help="Splits, such as refcoco/val or synthref/val; or files.", show_default=False
        ),
    ] = None,
    suite: suites.Suite = None,
    model: options.Model = None,
    server: options.Servers = None,
    serve: options.Serve = None,
    aim: options.Aim = None,
    codec: options.Codec = None,
    script: Annotated[
        Path | None,
        typer.Option(help="Answers to replay without a model: a line a sample, or a journal.", show_default=False),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Only share I of N of the pictures, with all that is asked about them; egm eval merge joins all.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; by default one in runs/eval named after model and datasets.")
    ] = None,
    images: options.Images = None,
    data_root: options.DataRoot = None,
    allow_partial: options.AllowPartial = False,
    scenes: options.Scenes = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Only the first samples of each dataset; with --suite, so many of its pictures by a fixed choice, "
            "with all that is asked about them.",
            show_default=False,
        ),
    ] = None,
    concurrency: options.Concurrency = None,
    expect: options.Expect = None,
    max_errors: Annotated[
        float, typer.Option(help="Share of samples that may end in an error before the run ends.")
    ] = 0.05,
    retry_errors: options.RetryErrors = False,
    *,
    settings: options.Settings,
    prompt: options.Prompt = None,
    cut_tail: options.CutTail = False,
    gate: options.GateFile = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Evaluate a model on datasets.

    Without --model, egm-tiny is asked, or the server's only model. Each answer goes into RUN/journal.jsonl at once.
    However a run ended, the same command goes on with it: nothing is asked twice, and the numbers are those of an
    uninterrupted run. Model and server must be the same; a server on this machine may have another port. Exit code 0
    if the run is complete, 1 if too many samples ended in an error, 2 if the input is bad. egm eval merge makes one
    run of shards (--shard).
    """
    from egm.codecs import DEFAULT_CODEC, get_codec
    from egm.collector import paused_collector
    from egm.evaluate import evaluate
    from egm.evaluate.shards import Shard
    from egm.evaluate.suites import open_suite

    share = None if shard is None else Shard.parse(shard)
    wanted = options.check_expect(expect)
    if server and script is not None:
        raise EgmError("--server and --script are two sources of answers: give one")
    if serve is not None and script is not None:
        raise EgmError("--serve and --script are two sources of answers: give one")
    if script is not None and settings.think != "always":
        raise EgmError("--script replays answers as they were given, and --think would ask for others: leave it out")
    refuse_two_servers(serve, aim, server)
    datasets = datasets or []
    suites.check_source(suite, datasets, scenes=scenes)
    splits: dict[str, Iterable[Sample]] = {}
    if suite is not None:
        options.refuse_no_folder(images)
        places: dict[str, Any] = {"images": images, "data": data_root, "allow_partial": allow_partial}
        for split, dataset in open_suite(suite, pictures=limit, **places).items():
            check_pictures(dataset)
            splits[split] = dataset
    splits |= open_splits(
        datasets, images=images, data=data_root, allow_partial=allow_partial, scenes=scenes, limit=limit
    )
    asking: dict[str, Any] = {"settings": settings, "prompt": prompt, "cut_tail": cut_tail, "gate": gate}
    with ExitStack() as stack:
        if script is not None:
            options.refuse_placement(device, dtype)
            reader = get_codec(codec or DEFAULT_CODEC)
            with paused_collector():
                asked = [(split, sample) for split, samples in splits.items() for sample in _named(samples)]
                grounder, facts = _replay(script, asked, model, reader, concurrency, asking)
            stack.enter_context(grounder)
        else:
            where: dict[str, Any] = {"server": server, "serve": serve, "aim": aim, "device": device, "dtype": dtype}
            grounder, facts = stack.enter_context(
                opened_grounder(model, codec=codec, concurrency=concurrency, **where, **asking)
            )
        here = not server and script is None and grounder.backend.model == "egm-tiny"
        if here and (line := dataset_notice(splits.values())) is not None:
            print(line, file=sys.stderr)
        names = [*(splits if suite is None else suites.folder_names(suite, limit))]
        names += [] if share is None else [f"shard-{share.number}-of-{share.count}"]
        folder = out if out is not None else Path("runs") / "eval" / _slug(grounder.backend.model, *names)
        try:
            kept: dict[str, Any] = {"max_errors": max_errors, "retry_errors": retry_errors, "expect": wanted}
            result = evaluate(splits, grounder, folder, engine=facts(), shard=share, progress=True, **kept)
        except KeyboardInterrupt:
            print(f"interrupted: {spaced(folder)} keeps the answers, and the same command goes on", file=sys.stderr)
            raise typer.Exit(130) from None
    tell_run(result, folder, suite=suite is not None, as_json=as_json)


def _named(samples: Iterable[Sample]) -> Iterable[Sample]:
    """The samples, without reading pictures that lie inside files."""
    from egm.datasets.dataset import Dataset

    return samples.annotations() if isinstance(samples, Dataset) else samples


def _replay(
    script: Path,
    asked: Sequence[tuple[str, Sample]],
    model: str | None,
    codec: Codec,
    concurrency: int | None,
    asking: Mapping[str, Any],
) -> tuple[Grounder, Facts]:
    """Give the answers of a script, or of another run's journal."""
    from egm.evaluate.replay import read_script
    from egm.grounder import Grounder
    from egm.journal import JOURNAL_NAME

    script = script / JOURNAL_NAME if script.is_dir() else script
    backend = read_script(script, asked, votes=asking["settings"].votes, model=model or "scripted")
    grounder = Grounder(backend, codec, batch_size=8 if concurrency is None else concurrency, **asking)
    return grounder, lambda: {"script": hashlib.sha256(script.read_bytes()).hexdigest()[:16]}


def _slug(*names: str) -> str:
    return "_".join(re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "x" for name in names)[:120]
