"""What benchmarks share that train several models alike: commands until a deadline, learning curves, differences."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from egm.evaluate.suites import SUITES
from egm.files import write_text
from egm.journal import Record, read_whole_run
from egm.stats import cluster_mean, codes, hits, paired_difference
from egm.training.shared.run_folder import has_checkpoint, trained

ASKED = SUITES["synthref"]


class NotYetError(Exception):
    """A stage did not end: out of time, or it failed."""


class Runner:
    """Runs commands of egm until a deadline.

    Args:
        place: Where their output goes.
        deadline: Of `time.monotonic`.
    """

    def __init__(self, place: Path, deadline: float) -> None:
        self._place, self._deadline = place, deadline

    def egm(self, name: str, *words: object, gpu: int | None) -> None:
        """Run a command on one GPU of several; a NotYetError says what it said last, or that time was over."""
        left = self._deadline - time.monotonic()
        if left < 20:
            raise NotYetError(f"{name}: no time is left to begin it")
        seen = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)}
        file = self._place / f"{name}.txt"
        with file.open("a") as said:
            command = [sys.executable, "-m", "egm.cli", *map(str, words)]
            process = subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | seen)
            try:
                code = process.wait(left)
            except subprocess.TimeoutExpired:
                process.terminate()  # a training finishes its step and writes a checkpoint
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                raise NotYetError(f"{name}: time is over, and the next call goes on with it") from None
        if code:
            lines = [line for line in file.read_text().splitlines() if line.strip()]
            raise NotYetError(f"{name} ended with {code}: {lines[-1][:200] if lines else 'it said nothing'}")


def train(
    stage: str, recipe: dict[str, object], name: str, runner: Runner, place: Path, gpu: int | None, *words: str
) -> Path:
    """Take a run through its recipe, unless that has been done; returns the model."""
    file, run = place / f"{name}.yaml", place / name
    if trained(run) is None:
        write_text(file, json.dumps(recipe))  # JSON is YAML
        how = ["--resume"] if has_checkpoint(run) else words
        runner.egm(name, stage, file, "--out", run, *how, gpu=gpu)
    model = trained(run)
    if model is None:  # it was told to end
        raise NotYetError(f"{name}: stopped with a checkpoint")
    return model


def ask(model: Path, name: str, runner: Runner, options: argparse.Namespace, gpu: int | None) -> list[Record]:
    """Evaluate a model on the four splits, unless that has been done."""
    folder: Path = options.out / f"{name}-answers"
    done = folder / "done"
    if not done.exists():
        most = ("--limit", options.questions) if options.questions else ()
        placed = ("--model", model, "--concurrency", options.at_once, "--max-tokens", options.tokens, "--out", folder)
        runner.egm(f"{name}-eval", "eval", *ASKED, *most, *placed, gpu=gpu)
        write_text(done, "")
    return read_whole_run(folder)[1]


def curve(run: Path, key: str, points: int) -> dict[int, float]:
    """Some values of a run's log, evenly over its steps, with the first and the last."""
    if not (run / "log.jsonl").exists():
        return {}
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    values = {line["step"]: line[key] for line in logged if key in line}
    steps = list(values)
    chosen = {steps[round(at * (len(steps) - 1) / (points - 1))] for at in range(points)} if steps else set()
    return {step: values[step] for step in sorted(chosen)}


def percent(records: list[Record]) -> str:
    """Acc@0.5 with its interval, by picture."""
    found = cluster_mean(hits([record.iou for record in records]), codes([record.image for record in records]))
    return f"{100 * found.value:.2f} ({100 * found.low:.2f} to {100 * found.high:.2f})"


def difference(one: list[Record], other: list[Record]) -> str:
    """How many points more the first is right than the second, question by question."""
    by_question = {(record.split, record.id): record.iou for record in other}
    left = hits([by_question[record.split, record.id] for record in one])
    gain = paired_difference(
        left, hits([record.iou for record in one]), codes([record.image for record in one])
    ).analytic
    chance = ", within chance" if gain.low <= 0 <= gain.high else ""
    return f"{100 * gain.value:+.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f}){chance}"


def print_curve(key: str, runs: dict[str, Path], points: int) -> None:
    """Print a value by step of each run that has a log, as far as it has come."""
    rows = {name: curve(run, key, points) for name, run in runs.items()}
    steps = sorted({step for values in rows.values() for step in values})
    if not steps:
        return
    print(f"\n{key} by step")
    print(f"| | {' | '.join(map(str, steps))} |\n|---{'|---' * len(steps)}|")
    for name, values in rows.items():
        cells = (f"{values[step]:.4g}" if step in values else "" for step in steps)
        print(f"| {name} | {' | '.join(cells)} |")


def by_split(records: list[Record]) -> list[str]:
    """Acc@0.5 of each split and of all, each with its interval."""
    return [*(percent([record for record in records if record.split == split]) for split in ASKED), percent(records)]
