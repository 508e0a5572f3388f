"""`egm eval` over several servers of our own, one of which is killed twice and started again, beside one process.

    uv run python benchmarks/several_servers.py                    # four servers, all of SynthRef: an hour on a CPU
    uv run python benchmarks/several_servers.py --scenes 10        # the first ten scenes of each split

Pictures are spread over the servers. The first is killed (SIGKILL) when a quarter and when half of the questions are
answered, and started again at its port; it is to be left out, and to come back. Then the same questions are asked in
process. Prints what was said of the servers and a table: answers, errors, texts that differ, time. Exit code 1 if a
question was lost or asked twice, or in float32 if a text differs.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from datetime import date
from pathlib import Path

from egm.datasets.synthetic import SPLITS, TRAINING
from egm.environment import cpu_name, gpu_name, package_versions
from egm.journal import Record, read_journal

ASKED = [f"synthref/{name}" for name in SPLITS if name not in TRAINING and name != "calibration"]
KILLED_AT = (0.25, 0.5)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start(port: int, options: argparse.Namespace, stack: ExitStack) -> subprocess.Popen[str]:
    """Start a server and wait until it serves."""
    command = [sys.executable, "-m", "egm.server", options.model, "--port", str(port), "--device", options.device]
    command += ["--dtype", options.dtype, "--batch-size", str(options.batch_size)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    stack.callback(child.kill)
    assert child.stderr is not None
    if not any(re.search(r"serving .* at http", line) for line in child.stderr):
        raise SystemExit(f"the server at port {port} did not start")
    return child


def answered(journal: Path) -> int:
    with suppress(FileNotFoundError):
        return journal.read_bytes().count(b"\n") - 1
    return 0


def served(options: argparse.Namespace, out: Path, total: int) -> tuple[float, list[str]]:
    """Ask all servers, and kill the first twice; returns seconds, and what the command said of servers."""
    with ExitStack() as stack:
        ports = [free_port() for _ in range(options.servers)]
        children = [start(port, options, stack) for port in ports]
        urls = [word for port in ports for word in ("--server", f"http://127.0.0.1:{port}")]
        log = stack.enter_context(out.with_suffix(".txt").open("w"))
        began = time.monotonic()
        run = subprocess.Popen([*eval_command(options, out), *urls], stdout=log, stderr=log)
        stack.callback(run.kill)
        for share in KILLED_AT:
            while answered(out / "journal.jsonl") < share * total:
                if run.poll() is not None:
                    raise SystemExit(f"egm eval ended before {share:.0%}: see {out.with_suffix('.txt')}")
                time.sleep(0.1)
            children[0].send_signal(signal.SIGKILL)
            children[0].wait()
            children[0] = start(ports[0], options, stack)
        if run.wait():
            raise SystemExit(f"egm eval ended with {run.returncode}: see {out.with_suffix('.txt')}")
        seconds = time.monotonic() - began
    return seconds, [line for line in out.with_suffix(".txt").read_text().splitlines() if "servers" in line]


def eval_command(options: argparse.Namespace, out: Path) -> list[str]:
    first = ["--scenes", str(options.scenes)] if options.scenes else []
    tokens = ["--max-tokens", str(options.max_tokens)] if options.max_tokens else []
    tokens += ["--concurrency", str(options.concurrency)] if options.concurrency else []
    return [sys.executable, "-m", "egm.cli", "eval", *ASKED, *first, *tokens, "--out", str(out)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="egm-tiny")
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--scenes", type=int, help="only the first of each split")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch-size", type=int, default=4, help="of each server")
    parser.add_argument("--concurrency", type=int, help="questions at once, over all servers and in process")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # servers share the cores
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        began = time.monotonic()
        here = ["--model", options.model, "--device", options.device, "--dtype", options.dtype]
        told = out / "here.txt"
        with told.open("w") as log:
            subprocess.run([*eval_command(options, out / "here"), *here], check=True, stdout=log, stderr=log)
        alone = time.monotonic() - began
        expected = {record.key: record for record in read_journal(out / "here")[1]}
        seconds, said = served(options, out / "served", len(expected))
        records = read_journal(out / "served")[1]
    print(f"{gpu_name() or cpu_name()}, {package_versions('torch', 'transformers')}, {date.today()}")
    print(*said, sep="\n")
    return verdict(expected, records, (alone, seconds), options)


def verdict(
    expected: dict[tuple[str, str], Record],
    records: list[Record],
    seconds: tuple[float, float],
    options: argparse.Namespace,
) -> int:
    """Print the table; returns the exit code."""
    keys = {record.key for record in records}
    differ = sum(record.text != expected[record.key].text for record in records if record.key in expected)
    errors = sum(record.error is not None for record in records)
    print("| | questions | answers | errors | texts that differ | seconds |\n|---|---:|---:|---:|---:|---:|")
    print(f"| in process | {len(expected)} | {len(expected)} | 0 | | {seconds[0]:.0f} |")
    print(
        f"| {options.servers} servers, one killed twice | {len(expected)} | {len(records)} | {errors} | {differ} | "
        f"{seconds[1]:.0f} |"
    )
    whole = len(keys) == len(records) == len(expected) and not errors
    exact = options.dtype not in ("bfloat16", "float16") and options.device == "cpu"
    return int(not whole or (exact and differ > 0))


if __name__ == "__main__":
    sys.exit(main())
