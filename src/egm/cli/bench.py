"""`egm bench`: how fast a model answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Any

import typer

from egm.cli import options
from egm.cli.group import Group
from egm.cli.printing import console, figure, plain_table, say_next
from egm.cli.served import refuse_two_servers, served_grounder
from egm.errors import EgmError
from egm.progress import track
from egm.terminal import printable, shell_command

_OF_MODEL = ("server", "serve", "aim", "model", "codec", "max_tokens", "cut_tail", "device", "dtype")
"""What `egm eval` takes too, and answers would not be those that were timed without."""

app = typer.Typer(cls=Group, help="Measure how fast a model answers.", no_args_is_help=True)


@app.callback()
def _group() -> None: ...


@app.command("latency")
def latency(
    context: typer.Context,
    server: options.Server = None,
    serve: options.Serve = None,
    aim: options.Aim = None,
    model: options.Model = None,
    codec: options.Codec = None,
    requests: Annotated[int, typer.Option(help="Requests measured for each load, at least.")] = 48,
    rounds: Annotated[
        int, typer.Option(help="Requests measured for each that is under way at once in a closed loop, at least.")
    ] = 4,
    concurrency: Annotated[
        list[int] | None,
        typer.Option(
            help="Closed loop with so many requests under way, or batches of so many; repeatable.", show_default=False
        ),
    ] = None,
    rate: Annotated[
        list[float] | None,
        typer.Option(help="Open loop of Poisson arrivals, so many a second; repeatable.", show_default=False),
    ] = None,
    warmup: Annotated[int, typer.Option(help="Requests before each load that are not measured.")] = 4,
    max_tokens: options.MaxTokens = None,
    cut_tail: options.CutTail = False,
    warm: Annotated[
        bool, typer.Option("--warm-images/--cold-images", help="One picture for all requests, or each its own.")
    ] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    seed: Annotated[int, typer.Option(help="Fixes arrivals and pictures; caches do not know another seed's.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Measure latency and throughput on pictures of SynthRef val.

    By default a server is measured at 1, 8 and 64 requests at once and at 2 and 8 arrivals a second; with --concurrency
    or --rate, only what they say. Of each load at least --requests are measured, of a closed loop --rounds times its
    concurrency if that is more: 48, 48, 256, 48 and 48 by default. An open loop sends at the time of arrival whatever
    is still running, up to the client's 1000 connections. A model in this process is measured one request at a time, or
    with --concurrency in batches of so many, each sent when the one before is answered. Latency runs from sending to
    the last token; queue, the wait before sending, is apart. A model on a GPU in this process has its floor beside it:
    the time that reading weights and cache takes at the bandwidth of a copy. Each request is tried once. Exit code 1 if
    all failed, 2 if the input is bad.
    """
    from egm import bench
    from egm.codecs import DEFAULT_CODEC

    refuse_two_servers(serve, aim, server)
    if server is None and serve is None and model is None:
        raise EgmError(
            "there is nothing to measure: give --server URL, --serve ENGINE, or --model egm-tiny for this process"
        )
    remote, chosen = server is not None or serve is not None, bool(concurrency or rate)
    loops = concurrency or ([] if rate or (remote and chosen) else [1, 8, 64] if remote else [1])
    rates = rate or ([2.0, 8.0] if remote and not chosen else [])
    asking: dict[str, Any] = {"max_tokens": max_tokens, "cut_tail": cut_tail}
    with ExitStack() as stack:
        if serve is not None:
            asked = {**bench.connection(max_tokens), "cut_tail": cut_tail}
            grounder, _ = stack.enter_context(
                served_grounder(model, serve, aim, device=device, dtype=dtype, codec=codec, **asked)
            )
        elif server is not None:
            options.refuse_placement(device, dtype)
            grounder = stack.enter_context(bench.connect(server, model, codec=codec or DEFAULT_CODEC, **asking))
        else:
            loaded = bench.load(str(model), codec=codec, device=device, dtype=dtype, **asking)
            grounder = stack.enter_context(loaded)
        loads = bench.measure(
            grounder,
            requests=requests,
            rounds=rounds,
            concurrency=loops,
            rates=rates,
            warmup=warmup,
            cold=not warm,
            seed=seed,
        )
        about = bench.describe(grounder)
        about |= {
            "images": "warm" if warm else "cold",
            "warmup": warmup,
            "rounds": rounds,
            "max_tokens": grounder.settings.max_new_tokens,
            "cut_tail": cut_tail,
            "seed": seed,
        }
        number = len(loops) + len(rates)
        results = list(track(loads, "measuring loads", number, enabled=None if number > 1 else False))
        if any("floor_bytes" in row for row in results):
            about["copy_bandwidth"] = bench.copy_bandwidth()
            bench.add_floors(results, about["copy_bandwidth"])
    if as_json:
        print(json.dumps({**about, "loads": results}))
    else:
        _print(about, results)
    failed = next((row["first_error"] for row in results if row["errors"]), None)
    if failed is not None:
        print("first error:", printable(failed), file=sys.stderr)
    if all(row["errors"] == row["requests"] for row in results):
        raise typer.Exit(1)
    say_next(shell_command("egm", "eval", "DATASET", *options.given_again(context, *_OF_MODEL)))


def _print(about: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    from rich.text import Text

    computed = any(row["operations"] is not None for row in results)
    bandwidth = about.get("copy_bandwidth")
    table = plain_table(
        *("load", "measured", "errors", "req/s", "mean", "p50", "p90", "p99"),
        *("first token p50", "queue p50", "queue p99", "tok/s", "tokens", *(["GFLOP", "GB"] if computed else [])),
        *(["floor", "x floor"] if bandwidth else []),
    )
    for row in results:
        times, first, queue = (row[name] or {} for name in ("latency", "first_token", "queue"))
        load = f"{row['concurrency']} at once" if row["loop"] == "closed" else f"Poisson {row['rate']:g}/s"
        table.add_row(
            load,
            str(row["requests"]),
            str(row["errors"]),
            figure(row["requests_per_second"], 2),
            *(figure(times.get(name), 3) for name in ("mean", "p50", "p90", "p99")),
            figure(first.get("p50"), 3),
            *(figure(queue.get(name), 3) for name in ("p50", "p99")),
            figure(row["tokens_per_second"], 1),
            figure(row["mean_tokens"], 1),
            *(figure(row[name], 2, scale=1e-9) for name in ("operations", "bytes") if computed),
            *(figure(row.get(name), 3) for name in ("floor_seconds", "times_floor") if bandwidth),
        )
    out = console()
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    out.print(Text(printable(f"{about['engine']}, model {about['model']}; {versions}")), soft_wrap=True)
    out.print(
        Text(
            f"{about['images']} images, at most {about['max_tokens']} tokens"
            f"{', answers end behind their box' if about['cut_tail'] else ''}; of each load so many requests as stand "
            f"under measured, after {about['warmup']} to warm up; times in seconds"
            f"{'; operations and bytes moved of an answer are computed, at 2 bytes a number' if computed else ''}"
        ),
        soft_wrap=True,
    )
    if bandwidth:
        said = f"floor: weights and cache, read at the {bandwidth / 1e12:.2f} TB/s of a copy that was measured here"
        out.print(Text(f"{said}; x floor is the median over it"), soft_wrap=True)
    out.print(table)
