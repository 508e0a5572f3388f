"""Does filtering pay? The same training on clean, on corrupted, and on corrupted and then filtered rationales.

    python benchmarks/filtering_pays.py --rows 40000 --steps 1200 --seeds 0 1          # one GPU
    python benchmarks/filtering_pays.py --rows 60 --steps 2 --batch 4 --questions 2     # does it run at all

`egm rationales` words SynthRef's proofs of the same samples three times: as they are, with defects in a share of
them, and these again through the style's filters. `egm sft` trains on each for as many steps, so that all cost the
same, and `egm eval` asks the four splits. Prints accuracies with 95 % intervals, and differences with those of paired
questions; what is within chance is said to be.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from arms import percent

from egm.environment import cpu_name, gpu_name, package_versions
from egm.evaluate.suites import SUITES
from egm.files import write_text
from egm.journal import Record, read_journal
from egm.stats import codes, hits, paired_difference

ARMS = ("clean", "corrupted", "filtered")
ASKED = [split.removeprefix("synthref/") for split in SUITES["synthref"]]


def egm(*words: object, gpu: int | None = None) -> str:
    """Run a command of egm, on one GPU of several; what it printed."""
    seen = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)}
    command = [sys.executable, "-m", "egm.cli", *map(str, words)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | seen).stdout


def explain(arm: str, place: Path, options: argparse.Namespace) -> int:
    """Write an arm's rationales, unless they are there; returns how many were kept."""
    unfiltered = [] if arm == "filtered" else ["--filters", place / "no_filters.yaml"]
    corrupt = [] if arm == "clean" else ["--corrupt", options.corrupt]
    made = ("--teacher", "synthref", "--style", options.style, "--tries", 1, "--limit", options.rows, "--go-on")
    said = egm("rationales", "make", "synthref/train", *made, *corrupt, *unfiltered, "--out", place / arm, "--json")
    lines = (place / arm / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    lines = [line for line in lines if json.loads(line).get("rationale")]  # what says nothing cannot be taught
    write_text(place / arm / "taught.jsonl", "".join(lines))
    print(f"{arm}: {json.loads(said)['kept']} rows kept, {len(lines)} taught", file=sys.stderr, flush=True)
    return len(lines)


def train(arm: str, seed: int, place: Path, options: argparse.Namespace, gpu: int | None) -> Path:
    """Train on an arm's rationales, unless that has been done; returns the model."""
    recipe = {
        "stage": "sft",
        "model": {"name": options.base, "from_scratch": options.base != "egm-tiny"},
        "data": {"train": [{"path": str((place / arm / "taught.jsonl").resolve())}], "max_length": 2048},
        "optim": {
            "steps": options.steps,
            "batch_size": options.batch,
            "optimizer": "muon",
            "learning_rate": options.rate,
            "schedule": "linear",
            "warmup_steps": options.steps // 20,
            "max_grad_norm": 1.0,
            "precision": options.precision,
        },
        "run": {
            "seed": seed,
            "workers": options.workers,
            "compile": options.compile,
            "save_every": options.steps,
            "log_every": max(1, options.steps // 10),
        },
    }
    file, run = place / f"{arm}-{seed}.yaml", place / f"{arm}-{seed}"
    write_text(file, json.dumps(recipe))  # JSON is YAML
    if not (run / "model").is_dir():
        egm("sft", file, "--out", run, *(["--resume"] if run.is_dir() else []), gpu=gpu)
    return run / "model"


def ask(model: Path, options: argparse.Namespace, gpu: int | None) -> list[Record]:
    """Evaluate a model on the four splits."""
    records = []
    for split in ASKED:
        folder = model.parent.with_name(f"{model.parent.name}-{split}")
        most = ("--limit", options.questions) if options.questions else ()
        placed = ("--model", model, "--concurrency", options.at_once, "--out", folder, "--json")
        egm("eval", f"synthref/{split}", *most, *placed, gpu=gpu)
        records += read_journal(folder)[1]
    return records


def difference(one: list[Record], other: list[Record]) -> str:
    """How many points more the first is right than the second, question by question: here of several seeds together."""
    left, right = (hits([record.iou for record in side]) for side in (other, one))
    gain = paired_difference(left, right, codes([record.image for record in one])).analytic
    chance = ", within chance" if gain.low <= 0 <= gain.high else ""
    return f"{100 * gain.value:+.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f}){chance}"


def main() -> None:
    """Print a table of arms and seeds, and the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/filtering-pays"), help="a run there is gone on with")
    parser.add_argument("--base", default="egm-tiny", help="egm-tiny, or a size to train from scratch")
    parser.add_argument("--style", default="candidates")
    parser.add_argument("--corrupt", type=float, default=0.3, help="share of rationales with a defect")
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--steps", type=int, default=1_200)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--compile", action="store_true", help="worth it on a GPU")
    parser.add_argument("--workers", type=int, default=15)
    parser.add_argument("--questions", type=int, default=0, help="first of each split; 0 is all")
    parser.add_argument("--at-once", type=int, default=256)
    parser.add_argument("--jobs", type=int, default=1, help="runs beside each other; they share cores and GPUs")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs that they are dealt to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "no_filters.yaml", "{}\n")
    with ThreadPoolExecutor(options.jobs) as pool:
        kept = dict(zip(ARMS, pool.map(lambda arm: explain(arm, options.out, options), ARMS), strict=True))
        print(f"rows kept: {kept}", file=sys.stderr, flush=True)
        runs = [(arm, seed) for seed in options.seeds for arm in ARMS]

        def run(number: int) -> list[Record]:
            arm, seed = runs[number]
            gpu = number % options.gpus if options.gpus > 1 else None
            records = ask(train(arm, seed, options.out, options, gpu), options, gpu)
            print(f"| {arm} | {kept[arm]} | {seed} | {percent(records)} |", file=sys.stderr, flush=True)
            return records

        answers = dict(zip(runs, pool.map(run, range(len(runs))), strict=True))
    found = {arm: [record for seed in options.seeds for record in answers[arm, seed]] for arm in ARMS}
    lines = [f"| {arm} | {kept[arm]} | {seed} | {percent(records)} |" for (arm, seed), records in answers.items()]
    versions = package_versions("torch", "transformers")
    print(f"{gpu_name() or cpu_name()}, {versions}, {date.today()}")
    cost = f"{options.steps} steps of {options.batch}"
    print(f"{options.base}, style {options.style}, {cost}, {options.corrupt:.0%} of rationales with a defect")
    print("| rationales | rows | seed | Acc@0.5 |\n|---|---|---|---|")
    print("\n".join(lines))
    for one, other in (("filtered", "corrupted"), ("clean", "corrupted"), ("clean", "filtered")):
        print(f"{one} minus {other}: {difference(found[one], found[other])}")


if __name__ == "__main__":
    main()
