"""Do families learn alike? Qwen3-VL's and InternVL's tiny sizes, trained alike on SynthRef and held side by side.

    python benchmarks/families_proof.py --gpus 2 --jobs 2                  # all; call it again to go on
    python benchmarks/families_proof.py --gpus 2 --jobs 2 --seconds 560    # a part of it
    python benchmarks/families_proof.py --steps 3 --batch 4 --rl-steps 2 --prompts 2 --questions 2 --tokens 16 \\
        --workers 0                                                        # does it run at all

Each arm is a size from scratch: `egm sft` on SynthRef's rationales at equal steps and batches, `egm eval` on the four
splits, a short `egm grpo` from there, and `egm eval` again. Trainings save checkpoints and evaluations journals, and
what runs when the time is over is told to end; so the next call goes on where this one was. Prints learning curves,
speeds, accuracies with 95 % intervals by picture, and differences with those of paired questions.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

from arms import ASKED, NotYetError, Runner, ask, by_split, difference, percent, print_curve, train

from egm.environment import cpu_name, gpu_name, package_versions
from egm.journal import Record

STAGES = ("sft", "grpo")


def make_recipe(stage: str, size: str, place: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Word a stage of an arm as a recipe; but for the model all arms have the same."""
    steps = options.steps if stage == "sft" else options.rl_steps
    shown = {"workers": options.workers, "log_every": max(1, steps // 20), "save_every": max(1, steps // 4)}
    rest = {"steps": steps, "warmup_steps": steps // 20, "max_grad_norm": 1.0, "precision": options.precision}
    if stage == "sft":
        return {
            "stage": "sft",
            "model": {"name": size, "from_scratch": True},
            "data": {"train": "synthref/train", "scenes": 4_000_000, "phrases": 2, "rationale": "inventory"},
            "optim": rest
            | {"batch_size": options.batch, "optimizer": "muon", "learning_rate": options.rate, "schedule": "linear"},
            "run": shown | {"seed": options.seed},
        }
    return {
        "stage": "grpo",
        "model": {
            "name": str((place / f"{size}-sft" / "model").resolve()),
            "freeze": ["vision_tower", "projector", "embeddings"],
        },
        "data": {"train": "synthref/train-reworded", "scenes": 100_000},
        "rollout": {"group": 8, "max_new_tokens": options.tokens, "rows": options.rows},
        "optim": rest | {"prompts": options.prompts, "learning_rate": options.rl_rate, "scale": "batch"},
        "run": shown | {"seed": options.seed + 1, "log_every": 1},
    }


def print_curves(options: argparse.Namespace) -> None:
    """Print what the logs say, of runs that have not ended too."""
    shown = {"sft": ("loss", "samples_per_second"), "grpo": ("reward", "accuracy", "step_time")}
    for stage, key in ((stage, key) for stage, keys in shown.items() for key in keys):
        print_curve(key, {f"{size}-{stage}": options.out / f"{size}-{stage}" for size in options.arms}, options.points)


def print_answers(answers: dict[tuple[str, str], list[Record]], arms: list[str]) -> None:
    """Print accuracies by split, and differences between arms and between stages."""
    print(f"\nAcc@0.5\n| | {' | '.join(ASKED)} | all |\n|---{'|---' * (len(ASKED) + 1)}|")
    for (size, stage), records in answers.items():
        print(f"| {size}, {stage} | {' | '.join(by_split(records))} |")
    print()
    for stage in STAGES:
        for size in arms[1:]:
            if (size, stage) in answers and (arms[0], stage) in answers:
                found = difference(answers[size, stage], answers[arms[0], stage])
                print(f"{size} minus {arms[0]}, after {stage}: {found}")
    for size in arms:
        if all((size, stage) in answers for stage in STAGES):
            print(f"{size}, grpo minus sft: {difference(answers[size, 'grpo'], answers[size, 'sft'])}")


def main() -> None:
    """Go on with all arms, as far as the time goes, and print what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/families-proof"), help="what is there is gone on with")
    parser.add_argument(
        "--arms", nargs="+", default=["tiny-s", "internvl-tiny-s"], help="sizes; the first is compared with"
    )
    parser.add_argument("--steps", type=int, default=2_000, help="of egm sft")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rl-steps", type=int, default=30, help="of egm grpo; 0 leaves it out")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rl-rate", type=float, default=2e-5)
    parser.add_argument("--tokens", type=int, default=512, help="most tokens of a completion and of an answer")
    parser.add_argument("--rows", type=int, default=512, help="completions that are decoded together")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=14, help="of each training")
    parser.add_argument("--questions", type=int, default=0, help="first of each split; 0 is all")
    parser.add_argument("--at-once", type=int, default=256)
    parser.add_argument("--points", type=int, default=9, help="of a learning curve")
    parser.add_argument("--jobs", type=int, default=1, help="arms beside each other; they share cores and GPUs")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs that they are dealt to")
    parser.add_argument("--seconds", type=float, default=10**6, help="what runs then is told to end")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    runner = Runner(options.out, time.monotonic() + options.seconds)
    answers: dict[tuple[str, str], list[Record]] = {}

    def go_on(number: int) -> None:
        size, gpu = options.arms[number], number % options.gpus if options.gpus > 1 else None
        try:
            for stage in STAGES[: 2 if options.rl_steps else 1]:
                recipe, words = make_recipe(stage, size, options.out, options), ["--skip-preflight"] * (stage == "grpo")
                model = train(stage, recipe, f"{size}-{stage}", runner, options.out, gpu, *words)
                records = ask(model, f"{size}-{stage}", runner, options, gpu)
                print(f"{size}, {stage}: {percent(records)}", file=sys.stderr, flush=True)
                answers[size, stage] = records
        except NotYetError as reason:
            print(f"not yet: {reason}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(go_on, range(len(options.arms))))
    print(f"{gpu_name() or cpu_name()}, {package_versions('torch', 'transformers', 'trl')}, {date.today()}")
    print(f"egm sft: {options.steps} steps of {options.batch}; egm grpo: {options.rl_steps} of {options.prompts} x 8")
    print_curves(options)
    answers = {
        (size, stage): answers[size, stage] for size in options.arms for stage in STAGES if (size, stage) in answers
    }
    if answers:
        print_answers(answers, options.arms)


if __name__ == "__main__":
    main()
