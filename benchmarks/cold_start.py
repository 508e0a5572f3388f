"""Seconds from starting a process to its first answer, and to each one after that; and to the end of each `--help`.

    python benchmarks/cold_start.py [--model egm-tiny] [--answers 6] [--runs 3]

A new process imports egm, loads the model and grounds phrases of SynthRef; this one holds the watch, so the
interpreter's own start counts too.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

CHILD = """
import sys
from egm.datasets.synthetic import SynthRef
from egm.grounder import Grounder
grounder = Grounder.load(sys.argv[1])
samples = iter(SynthRef("val"))
for _ in range(int(sys.argv[2])):
    sample = next(samples)
    result = grounder.ground(sample.image, sample.phrase, amodal=sample.amodal)
    print(result.tokens, flush=True)
"""
COMMANDS = (
    *("", "ground", "demo", "eval", "score", "report", "sft", "grpo", "reproduce", "bench latency"),
    *("data check", "data convert", "data synthetic", "models export"),
)


def measure(model: str, answers: int) -> tuple[list[float], list[int]]:
    """Return seconds and tokens of each answer; the first counts from the start of the process."""
    seconds, tokens = [], []
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, model, str(answers)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            now = time.perf_counter()
            seconds.append(now - start)
            tokens.append(int(line))
            start = now
    if child.returncode:
        sys.exit(child.returncode)
    return seconds, tokens


def help_seconds(command: str) -> float:
    """Return the seconds that a command's `--help` takes, from starting its process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "egm.cli", *command.split(), "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="egm-tiny")
    parser.add_argument("--answers", type=int, default=6)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print("run  first answer  each further one (median, slowest)  tokens (median)")
    for run in range(options.runs):
        seconds, tokens = measure(options.model, options.answers)
        further = seconds[1:] or [float("nan")]
        print(
            f"{run + 1:3d}  {seconds[0]:10.2f} s  {statistics.median(further):18.2f} s  {max(further):7.2f} s"
            f"  {statistics.median(tokens):17.0f}"
        )
    seconds_of = {command: min(help_seconds(command) for _ in range(options.runs)) for command in COMMANDS}
    print("--help (fastest of the runs): " + ", ".join(f"{name or 'egm'} {s:.2f} s" for name, s in seconds_of.items()))


if __name__ == "__main__":
    main()
