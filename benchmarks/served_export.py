"""egm-tiny behind an engine against egm-tiny in process: all of SynthRef's questions, and what `egm doctor` says.

    python benchmarks/served_export.py --engine sglang
    python benchmarks/served_export.py --engine vllm --started default --started fp8 --started latency --scenes 100
    python benchmarks/served_export.py --engine egm --device cuda --here

`egm eval` asks each split from a process of its own, since one client would hold an engine up; journals are compared
question by question. The first start is asked everything, further ones the first `--others` questions of each split,
and each the first `--alone` questions of one split, one at a time. Then, one request at a time behind the first start,
whole answers against such that end behind their box. Both sides compute in `--dtype`, with other kernels, so that texts
may differ where two tokens are nearly as likely; accuracies should not. The last lines are a table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

from egm.environment import cpu_name, gpu_name
from egm.evaluate import ERROR
from egm.evaluate.suites import SUITES
from egm.journal import Record, read_journal
from egm.serve import RunningServer, serve

ENGINES = ("sglang", "vllm", "transformers", "egm")
ASKED = [split.removeprefix("synthref/") for split in SUITES["synthref"]]
SHARES = {  # of one GPU's memory for each of several servers
    "sglang": ["--mem-fraction-static", "0.9", "--max-total-tokens", "60000", "--stream-interval", "8"],
    "vllm": ["--kv-cache-memory-bytes", "2000000000", "--gpu-memory-utilization", "0.2", "--stream-interval", "8"],
}

Answers = dict[tuple[str, str], Record]


def egm(*words: object) -> subprocess.Popen[str]:
    """Begin a command of egm."""
    command = [sys.executable, "-m", "egm.cli", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ask(place: Path, options: argparse.Namespace, *words: object, limit: int | None = None) -> tuple[Answers, float]:
    """Evaluate every split at once, each in a process of its own; returns the records and the seconds."""
    begun = time.perf_counter()
    some = [*(["--scenes", options.scenes] if options.scenes else []), *(["--limit", limit] if limit else [])]
    runs = {split: egm("eval", f"synthref/{split}", *words, *some, "--out", place / split, "--json") for split in ASKED}
    answers: Answers = {}
    for split, run in runs.items():
        _, said = run.communicate()
        if run.returncode:
            print(f"{place.name}, {split}: {said.strip()[-500:]}", file=sys.stderr)
        else:
            answers |= {record.key: record for record in read_journal(place / split)[1]}
    return answers, time.perf_counter() - begun


def alone(place: Path, server: RunningServer, options: argparse.Namespace) -> str:
    """Milliseconds and tokens of a question when no other is asked; the first of them brings caches up."""
    words = ("synthref/test-complex", "--server", server.url, "--concurrency", 1, "--max-tokens", 640)
    run = egm("eval", *words, "--limit", options.alone + 5, "--out", place, "--json")
    _, said = run.communicate()
    if run.returncode:
        return said.strip()[-300:]
    records = read_journal(place)[1][5:]
    tokens = sum(record.completion_tokens or 0 for record in records)
    return (
        f"{1e3 * sum(record.seconds for record in records) / len(records):.0f} ms, {tokens / len(records):.0f} tokens"
    )


def examine(server: RunningServer) -> str:
    """What `egm doctor` says, in a line."""
    begun = time.perf_counter()
    said, wrong = egm("doctor", "--server", server.url, "--json").communicate()
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError:
        return wrong.strip()[-300:]
    named = "; ".join(f"{one['name']}: {one['seen']}" for one in found["findings"])
    return f"{found['verdict']}, {time.perf_counter() - begun:.0f} s: {named or found['reason']}"


def start(options: argparse.Namespace, words: str, stack: ExitStack) -> RunningServer:
    """Start a server: an aim of `egm serve` or "default", "fp8", "speculation", and flags of the engine."""
    aim, *flags = [word for word in words.split() if word not in ("fp8", "speculation")] or ["default"]
    return stack.enter_context(
        serve(
            options.model,
            options.engine,
            aim=None if aim == "default" else aim,
            quantization="fp8" if "fp8" in words.split() else None,
            speculation="speculation" in words.split(),
            device=options.device,
            dtype=options.dtype,
            passed_on=[*SHARES.get(options.engine, ()), *flags],
        )
    )


def compared(name: str, answers: Answers, first: Answers | None) -> str:
    """A row of the table."""
    records = list(answers.values())
    cells = [name, str(len(records))]
    for split in ASKED:
        hits = [record.hit() for record in records if record.split == f"synthref/{split}"]
        cells.append(f"{100 * sum(hits) / len(hits):.2f}" if hits else "-")
    cells.append(str(sum(record.failure == ERROR for record in records)))
    cells.append(f"{sum(record.completion_tokens or 0 for record in records) / max(1, len(records)):.1f}")
    both = [] if first is None else [(record, first[key]) for key, record in answers.items() if key in first]
    if not both:
        return " | ".join([*cells, "-", "-", "-"])
    cells.append(f"{sum(one.text == other.text for one, other in both)} of {len(both)}")
    cells.append(f"{sum(_box(one) == _box(other) for one, other in both)}")
    cells.append(
        f"{100 * (sum(one.hit() for one, _ in both) - sum(other.hit() for _, other in both)) / len(both):+.2f}"
    )
    return " | ".join(cells)


def _box(record: Record) -> Sequence[float] | str | None:
    return record.failure if record.box is None else [round(value, 2) for value in record.box]


def main() -> None:
    """Start the servers, ask, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=ENGINES, default="sglang")
    parser.add_argument("--started", action="append", metavar="WORDS", help="see benchmarks/serving.py; repeatable")
    parser.add_argument("--model", default="egm-tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--scenes", type=int, help="first scenes of each split; by default all")
    parser.add_argument("--others", type=int, default=300, help="first questions of each split for further starts")
    parser.add_argument("--alone", type=int, default=40, help="questions asked one at a time, of each start")
    parser.add_argument("--concurrency", type=int, default=24, help="questions at once, of each split")
    parser.add_argument("--here", action="store_true", help="ask in this process too, and compare with that")
    parser.add_argument(
        "--one-by-one", type=int, default=8, metavar="SCENES", help="for whole and cut answers; 0: none"
    )
    options = parser.parse_args()
    starts = options.started or ["default"]
    at_once = ("--concurrency", options.concurrency, "--max-tokens", 640)
    rows: list[str] = []
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with ThreadPoolExecutor(len(starts)) as pool:
            begun = {words: pool.submit(start, options, words, stack) for words in starts}
        found: Mapping[str, RunningServer] = {
            words: one.result() for words, one in begun.items() if not one.exception()
        }
        for words, one in begun.items():
            if (why := one.exception()) is not None:
                rows.append(f"{options.engine}, {words}: did not start: {why}")
        first: Answers | None = None
        if options.here:
            words = ("--device", options.device, "--dtype", options.dtype, "--concurrency", 256)
            first, seconds = ask(place / "here", options, *words)
            rows.append(f"{compared('in process', first, None)} | {seconds:.0f} s | - | -")
        for number, (words, server) in enumerate(found.items()):
            verdict = examine(server)
            limit = options.others if number else None
            answers, seconds = ask(place / str(number), options, "--server", server.url, *at_once, limit=limit)
            each = alone(place / f"{number}-alone", server, options)
            row = compared(f"{options.engine}, {words}", answers, first)
            rows.append(f"{row} | {seconds:.0f} s | {each} | {verdict}")
            first = answers if first is None else first
            print(rows[-1], file=sys.stderr, flush=True)
        if found and options.one_by_one:
            server = next(iter(found.values()))
            again, _ = ask(place / "cut", options, "--server", server.url, *at_once, "--cut-tail", limit=options.others)
            rows.append(compared("the first, tail cut", again, first))
            cut = [sys.executable, str(Path(__file__).with_name("cut_tail.py")), "--server", server.url]
            told = subprocess.run(
                [*cut, "--scenes", str(options.one_by_one)], capture_output=True, text=True, check=False
            )
            rows.append(told.stdout.strip() or told.stderr.strip()[-500:])
        about = next(iter(found.values())) if found else None
    hardware = gpu_name() or cpu_name()
    print(f"\n{options.model}, {hardware}, {options.engine} {about and about.version}, {options.dtype}, {date.today()}")
    heads = [
        *ASKED,
        "errors",
        "tokens",
        "equal texts",
        "equal boxes",
        "Acc@0.5 against the first",
        "time",
        "one at a time",
        "egm doctor",
    ]
    print(" | ".join(["started", "questions", *heads]))
    print("\n".join(rows))


if __name__ == "__main__":
    main()
