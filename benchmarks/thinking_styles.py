"""Which style of thinking gives most for its tokens? The same training on direct answers and on each style.

    python benchmarks/thinking_styles.py --gpus 2 --jobs 4                 # all; call it again to go on
    python benchmarks/thinking_styles.py --steps 3 --batch 4 --questions 2 --workers 0    # does it run at all

Each arm starts from the same weights and takes as many steps over the same samples, asked in both wordings; only the
target's reasoning differs. Prints accuracies with 95 % intervals by picture, tokens an answer, accuracy by complexity,
paired differences to direct answers, and both wordings side by side on `val`.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Any

from arms import ASKED, NotYetError, Runner, ask, by_split, difference, percent, print_curve, train

from egm.environment import cpu_name, gpu_name, package_versions
from egm.journal import Record, read_whole_run

STYLES = ("direct", "official", "candidates", "inventory")
WORDINGS = ("grounding", "qwen3")


def make_recipe(style: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Word an arm as a recipe; but for the reasoning all are the same."""
    reasoning = {"thinking": False} if style == "direct" else {"rationale": style}
    return {
        "stage": "sft",
        "model": {"name": options.base, "from_scratch": options.base != "egm-tiny"},
        "data": {"train": options.train, "scenes": 4_000_000, "phrases": 2, "prompt": list(WORDINGS), **reasoning},
        "optim": {
            "steps": options.steps,
            "batch_size": options.batch,
            "optimizer": "muon",
            "learning_rate": options.rate,
            "schedule": "linear",
            "warmup_steps": options.steps // 20,
            "weight_decay": 0.05,
            "beta2": 0.98,
            "max_grad_norm": 1.0,
            "precision": options.precision,
        },
        "run": {
            "seed": 10 + seed,  # other scenes than those of the base
            "workers": options.workers,
            "compile": options.compile,
            "log_every": max(1, options.steps // 20),
            "save_every": max(1, options.steps // 4),
        },
    }


def ask_otherwise(model: Path, name: str, runner: Runner, options: argparse.Namespace, gpu: int | None) -> list[Record]:
    """Ask `val` in the wording that is not the default, unless that has been done."""
    folder: Path = options.out / f"{name}-qwen3"
    if not (folder / "done").exists():
        most = ("--limit", options.questions) if options.questions else ()
        placed = ("--model", model, "--concurrency", options.at_once, "--prompt", "grounding", "--out", folder)
        runner.egm(f"{name}-qwen3", "eval", "synthref/val", *most, *placed, gpu=gpu)
        (folder / "done").touch()
    return read_whole_run(folder)[1]


def by_complexity(records: list[Record]) -> list[str]:
    """Acc@0.5 by the number of relations in a phrase."""
    return [percent([record for record in records if record.meta.get("complexity") == k]) for k in range(4)]


def print_answers(answers: dict[tuple[str, int], tuple[list[Record], list[Record]]]) -> None:
    """Print accuracies by split and by complexity, tokens, and differences to direct answers."""
    print(f"\nAcc@0.5\n| | {' | '.join(ASKED)} | all | tokens |\n|---{'|---' * (len(ASKED) + 2)}|")
    for (style, seed), (records, _) in answers.items():
        tokens = mean(record.completion_tokens or 0 for record in records)
        print(f"| {style}, seed {seed} | {' | '.join(by_split(records))} | {tokens:.1f} |")
    print("\nby relations in the phrase\n| | 0 | 1 | 2 | 3 |\n|---|---|---|---|---|")
    for (style, seed), (records, _) in answers.items():
        print(f"| {style}, seed {seed} | {' | '.join(by_complexity(records))} |")
    print()
    for (style, seed), (records, other) in answers.items():
        if style != "direct" and ("direct", seed) in answers:
            print(f"{style} minus direct, seed {seed}: {difference(records, answers['direct', seed][0])}")
        same = [record for record in records if record.split == "synthref/val"]
        print(f"{style}, seed {seed}, the card's wording minus Qwen's on val: {difference(other, same)}")


def main() -> None:
    """Go on with all arms, as far as the time goes, and print what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/thinking-styles"), help="what is there is gone on with")
    parser.add_argument("--base", default="egm-tiny", help="egm-tiny, or a size to train from scratch")
    parser.add_argument("--train", default="synthref/train")
    parser.add_argument("--styles", nargs="+", default=list(STYLES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--tokens", type=int, default=512, help="most tokens of an answer")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--compile", action="store_true", help="worth it on a GPU")
    parser.add_argument("--workers", type=int, default=7, help="of each training")
    parser.add_argument("--questions", type=int, default=0, help="first of each split; 0 is all")
    parser.add_argument("--at-once", type=int, default=256)
    parser.add_argument("--points", type=int, default=9, help="of a learning curve")
    parser.add_argument("--jobs", type=int, default=1, help="arms beside each other; they share cores and GPUs")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs that they are dealt to")
    parser.add_argument("--seconds", type=float, default=10**6, help="what runs then is told to end")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    runner = Runner(options.out, time.monotonic() + options.seconds)
    arms = [(style, seed) for seed in options.seeds for style in options.styles]
    found: dict[tuple[str, int], tuple[list[Record], list[Record]]] = {}

    def go_on(number: int) -> None:
        style, seed = arms[number]
        name, gpu = f"{style}-{seed}", number % options.gpus if options.gpus > 1 else None
        try:
            model = train("sft", make_recipe(style, seed, options), name, runner, options.out, gpu)
            records = ask(model, name, runner, options, gpu)
            print(f"{name}: {percent(records)}", file=sys.stderr, flush=True)
            found[style, seed] = records, ask_otherwise(model, name, runner, options, gpu)
        except NotYetError as reason:
            print(f"not yet: {reason}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(go_on, range(len(arms))))
    print(f"{gpu_name() or cpu_name()}, {package_versions('torch', 'transformers', 'trl')}, {date.today()}")
    print(f"{options.base}, {options.steps} steps of {options.batch} at {options.rate:g}, {options.train}")
    for key in ("loss", "samples_per_second"):
        print_curve(key, {f"{style}-{seed}": options.out / f"{style}-{seed}" for style, seed in arms}, options.points)
    if found:
        print_answers({arm: found[arm] for arm in arms if arm in found})


if __name__ == "__main__":
    main()
