"""Training on several GPUs beside one: FSDP2, ZeRO-3 and torchrun through egm sft and egm grpo, on the same samples.

    python benchmarks/several_gpus.py --processes 2                    # 8B by LoRA, 2B whole, egm-tiny by GRPO
    python benchmarks/several_gpus.py --processes 2 --seconds 500      # a part of it; the next call goes on
    python benchmarks/several_gpus.py --lora tiny-s --whole tiny-s --ways one torchrun --batch 4 --steps 4 --half 2

Each run is a command that users have, in a process of its own with a limit of time, and gets a line in `results.jsonl`
of `--out`; a later call takes what has one from there, and prints all as one table. A run that fails is a row with what
it said last. The architectures are the published ones with random weights, written once as a folder that `egm sft`
opens; pictures are noise in sizes that COCO has, with SynthRef's phrases and rationales. All runs of a task have one
recipe, and so the same samples in each step. Then a sharded run goes on from its middle checkpoint with half as many
processes. Memory is what nvidia-smi says a GPU has in use, at its highest, looked at twice a second.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from egm.datasets.synthetic import SynthRef
from egm.environment import cpu_name, gpu_name, package_versions
from egm.files import write_text
from egm.models import build_model, build_processor

SIZES = [(640, 480), (480, 640), (640, 427), (500, 375), (612, 612)]
FILES = Path(__file__).parents[1] / "recipes" / "accelerate"
WAYS = ("one", "torchrun", "fsdp2", "zero3")
ON_GPU = torch.cuda.is_available()
IMAGE_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


@dataclass(frozen=True)
class Job:
    """A run.

    Attributes:
        task: lora, whole or grpo.
        way: How it is launched.
        processes: How many there are.
        written_by: How many processes wrote the checkpoint that it goes on from; 0 where it starts anew.
    """

    task: str
    way: str
    processes: int
    written_by: int = 0

    @property
    def name(self) -> str:
        """What its files and its row are called."""
        before = f"{self.written_by}-to-" if self.written_by else ""
        return f"{self.task}-{self.way}-{before}{self.processes}"

    @property
    def shown(self) -> str:
        """The processes, for the table."""
        return f"{self.written_by} then {self.processes}" if self.written_by else str(self.processes)


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """All runs, those that others are compared with first."""
    for task in options.tasks:
        for way in options.ways:
            if way == "one":
                yield Job(task, way, 1)
                continue
            if task == "grpo" and way != "torchrun":
                continue  # sharded weights leave rollouts to a vLLM, which has a benchmark of its own: grpo_apart.sh
            for processes in options.processes:
                yield Job(task, way, processes)
                if task != "grpo":
                    yield Job(task, way, max(1, processes // 2), written_by=processes)


def write_data(folder: Path, count: int) -> Path:
    """Write noisy pictures with SynthRef's phrases and rationales, and boxes anywhere; returns the file of rows."""
    rows = folder / f"train-{count}.jsonl"
    if rows.exists():
        return rows
    folder.mkdir(parents=True, exist_ok=True)
    draw, source, lines = random.Random(0), SynthRef("train"), []
    for number in range(count):
        text = next(iter(source.samples(number)))
        width, height = draw.choice(SIZES)
        noise = np.random.default_rng(number).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")
        box = [draw.uniform(0, width / 2), draw.uniform(0, height / 2), width * 0.8, height * 0.9]
        row = {"id": str(number), "image": f"{number}.jpg", "sent": text.phrase, "bbox": box}
        lines.append(json.dumps(row | {"width": width, "height": height, "rationale": text.rationale}) + "\n")
    write_text(rows, "".join(lines))
    return rows


def write_model(size: str, folder: Path) -> None:
    """Write a size with random weights in bfloat16, and egm-tiny's tokenizer with the size's vocabulary around it."""
    processor = build_processor()
    processor.image_processor.size = {"shortest_edge": 64 * 64, "longest_edge": 4096 * 32 * 32}
    model = build_model(size, dtype="bfloat16", device="cuda" if ON_GPU else "cpu")
    for key, token in zip(IMAGE_IDS, ("image_pad", "video_pad", "vision_start", "vision_end"), strict=True):
        setattr(model.config, key, processor.tokenizer.convert_tokens_to_ids(f"<|{token}|>"))
    model.save_pretrained(folder, max_shard_size="5GB")
    processor.save_pretrained(folder)


def model_folder(size: str, options: argparse.Namespace) -> Path:
    """Return the folder of a size, written once, in a process that leaves nothing on the GPU."""
    folder: Path = options.out / "models" / size
    if not (folder / "processor_config.json").exists():
        command = [sys.executable, __file__, "--write-model", size, "--out", folder]
        subprocess.run([str(word) for word in command], check=True)
    return folder


def make_recipe(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """Word a task as a recipe."""
    shown = {"workers": options.workers, "log_every": 1, "save_every": options.half, "seed": 0}
    rate = {"schedule": "constant_with_warmup", "warmup_steps": 0, "steps": options.steps}
    if task == "grpo":
        return {
            "stage": "grpo",
            "model": {"name": "egm-tiny", "freeze": ["vision_tower", "projector", "embeddings"]},
            "data": {"train": "synthref/train-reworded", "scenes": 2000},
            "rollout": {"group": 8, "max_new_tokens": options.tokens, "keep": 0},
            "optim": rate | {"prompts": options.prompts, "learning_rate": 1e-5, "zero_spread": "count"},
            "run": shown | {"save_every": 10**6},
        }
    size, rest = (options.lora, {"dtype": "bfloat16", "lora": {"rank": options.rank}}), {"learning_rate": 1e-4}
    if task == "whole":  # float32 masters and bfloat16 arithmetic, as both ways of sharding have it
        size, rest = (options.whole, {"dtype": "float32"}), {"learning_rate": 1e-5, "recompute": 1.0}
    rows = write_data(options.out / "data", options.batch * options.steps)
    return {
        "stage": "sft",
        "model": {"name": str(model_folder(size[0], options).resolve())} | size[1],
        "data": {"train": str(rows.resolve()), "max_length": 4096},
        "optim": rate | rest | {"batch_size": options.batch, "accumulation": options.accumulation},
        "run": shown | {"flatten": True},
    }


def command(job: Job, recipe: Path, run: Path) -> list[str]:
    """Word a run as a command line."""
    words = ["-m", "egm.cli", "grpo" if job.task == "grpo" else "sft", str(recipe), "--out", str(run)]
    words += ["--resume"] if job.written_by else []
    words += ["--set", "run.save_every=1000000"] if job.way == "one" else []  # nothing goes on from it
    words += ["--skip-preflight"] if job.task == "grpo" else []
    if job.way == "one":
        return [sys.executable, *words]
    if job.way == "torchrun":
        several = ["--standalone", "--nproc-per-node", str(job.processes)]
        return [sys.executable, "-m", "torch.distributed.run", *several, *words]
    placed = ["--config_file", str(FILES / f"{job.way}-8gpu.yaml"), "--num_processes", str(job.processes)]
    placed += [] if ON_GPU else ["--mixed_precision", "no"]
    return [sys.executable, "-m", "accelerate.commands.launch", *placed, *words]


class Memory(threading.Thread):
    """Asks nvidia-smi how much of each GPU is in use, until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[int, float] = {}
        self.stop = threading.Event()

    def run(self) -> None:
        """Ask twice a second."""
        asked = ["nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader,nounits"]
        while ON_GPU and not self.stop.wait(0.5):
            said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
            for number, used in re.findall(r"^(\d+), (\d+)$", said, re.MULTILINE):
                self.peaks[int(number)] = max(self.peaks.get(int(number), 0.0), int(used) / 1024)


def carry_out(words: list[str], job: Job, said: Path, limit: float) -> tuple[str, dict[int, float]]:
    """Run a command on as many GPUs as it has processes; how it ended, empty if well, and the peaks of memory."""
    seen = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(job.processes)))} if ON_GPU else {}
    memory = Memory()
    memory.start()
    with said.open("w") as file:
        process = subprocess.Popen(
            words, stdout=file, stderr=file, start_new_session=True, env=os.environ | {"PYTHONUNBUFFERED": "1"} | seen
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    memory.stop.set()
    memory.join()
    peaks = {number: memory.peaks.get(number, 0.0) for number in range(job.processes)} if memory.peaks else {}
    return ("" if code == 0 else f"over {limit:.0f} s" if code is None else last_words(said.read_text())), peaks


def last_words(said: str) -> str:
    """The last line that names an error, and not the launcher's that a process has failed; else the last line."""
    lines = [re.sub(r"^\[rank\d+\]: ?", "", line).strip() for line in said.splitlines()]
    named = [line for line in lines if re.match(r"error: |[\w.]+(Error|Exception)\b", line)]
    named = [line for line in named if "ChildFailedError" not in line]
    return (named or [line for line in lines if line] or ["it said nothing"])[-1][:300]


def figures(run: Path, job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Read a run's log: losses or rewards by step, and the median speed of what is timed."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    key = "reward" if job.task == "grpo" else "loss"
    lines = [line for line in lines if key in line]
    if not lines:
        return {}
    first = options.half if job.written_by else 0
    timed = [line for line in lines if line["step"] > first + options.warmup] or lines[-1:]
    if job.task == "grpo":
        speeds = [options.prompts * 8 / line["step_time"] for line in timed]
    else:
        speeds = [line["samples_per_second"] for line in timed]
    steps = {line["step"]: round(line[key], 4) for line in lines if line["step"] > first}
    return {"samples_per_second": round(statistics.median(speeds), 2), "steps": steps}


def keep_middle(job: Job, run: Path, options: argparse.Namespace) -> None:
    """Leave of a run what a kill after its middle checkpoint would: what another number of processes goes on from."""
    middle, kept = run / "checkpoints" / f"checkpoint-{options.half}", run.with_name(f"{run.name}-middle")
    if job.way != "one" and job.task != "grpo" and not job.written_by and middle.is_dir():
        shutil.rmtree(kept, ignore_errors=True)
        (kept / "checkpoints").mkdir(parents=True)
        middle.rename(kept / "checkpoints" / middle.name)
        for name in ("recipe.yaml", "run.json"):
            shutil.copy(run / name, kept / name)
    shutil.rmtree(run)  # weights of many gigabytes


def measure(job: Job, options: argparse.Namespace, limit: float, failed: set[str]) -> dict[str, Any]:
    """Do a run, and read what it left."""
    folder: Path = options.out / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    recipe, run, said = folder / f"{job.task}.yaml", folder / job.name, folder / f"{job.name}.txt"
    write_text(recipe, json.dumps(make_recipe(job.task, options)))  # JSON is YAML
    shutil.rmtree(run, ignore_errors=True)
    if job.written_by:
        before = Job(job.task, job.way, job.written_by)
        middle = folder / f"{before.name}-middle"
        if not middle.is_dir() and before.name not in failed:  # another machine has it
            measure(before, options, limit, failed)
        if not middle.is_dir():
            return {"ended": "there is no checkpoint to go on from"}
        middle.rename(run)
    began = time.perf_counter()
    ended, peaks = carry_out(command(job, recipe, run), job, said, limit)
    ended = ended.replace(f"{folder}/", "")
    found: dict[str, Any] = {"ended": ended, "seconds": round(time.perf_counter() - began, 1)}
    found["peak_gib"] = [round(peak, 1) for peak in peaks.values()]
    if (run / "log.jsonl").exists():
        found |= figures(run, job, options)
    if ended:
        shutil.rmtree(run, ignore_errors=True)
    else:
        keep_middle(job, run, options)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """All rows, with losses beside one GPU's of the same steps."""
    lines = ["| task | way | processes | samples/s | peak GiB a GPU | loss or reward by step | losses apart |"]
    lines += ["|---|---|---|---|---|---|---|"]
    alone = {row["task"]: row.get("steps", {}) for row in rows if row["way"] == "one"}
    for row in rows:
        steps, other = row.get("steps", {}), alone.get(row["task"], {})
        apart = [abs(value - other[step]) for step, value in steps.items() if step in other]
        same = row["way"] != "one" and row["task"] != "grpo"  # whose processes draw otherwise
        far = f"{max(apart):.4f}" if apart and same else ""
        shown = f"{next(iter(steps))}: " + ", ".join(f"{value:.4f}" for value in steps.values()) if steps else ""
        peaks = ", ".join(f"{peak:.1f}" for peak in row.get("peak_gib", ()))
        cells = (row["task"], row["way"], row["shown"], row.get("samples_per_second", ""), peaks)
        lines.append("| " + " | ".join(map(str, (*cells, row["ended"] or shown, far))) + " |")
    return "\n".join(lines)


def main() -> None:
    """Do what has no row yet, as far as the time goes, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/several-gpus"), help="models, data, runs")
    parser.add_argument("--results", type=Path, help="file of rows; results.jsonl of --out by default")
    parser.add_argument("--tasks", nargs="+", choices=["lora", "whole", "grpo"], default=["lora", "whole", "grpo"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--processes", type=int, nargs="+", default=[2])
    parser.add_argument("--lora", default="8B", help="size that is trained by LoRA")
    parser.add_argument("--whole", default="2B", help="size that is trained whole")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16, help="samples a step, over all processes")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--half", type=int, default=5, help="step of the checkpoint that is gone on from")
    parser.add_argument("--warmup", type=int, default=2, help="steps that are not timed")
    parser.add_argument("--prompts", type=int, default=256, help="prompts a step of egm grpo")
    parser.add_argument("--tokens", type=int, default=512, help="most tokens of a completion")
    parser.add_argument("--workers", type=int, default=6 if ON_GPU else 0, help="of each process")
    parser.add_argument("--limit", type=float, default=240, help="seconds that one run may take")
    parser.add_argument("--seconds", type=float, default=10**6, help="begin no run that may end later than this")
    parser.add_argument("--again", nargs="*", default=[], help="rows that are measured again, such as lora-zero3-2")
    parser.add_argument("--write-model", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write_model:
        write_model(options.write_model, options.out)
        return
    deadline = time.monotonic() + options.seconds
    options.out.mkdir(parents=True, exist_ok=True)
    file: Path = options.results or options.out / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    rows = [row for row in rows if row["name"] not in options.again]
    known = {row["name"] for row in rows}
    for job in jobs(options):
        if job.name in known:
            continue
        if deadline - time.monotonic() < options.limit:
            print(f"no time is left for {job.name}: call again", file=sys.stderr)
            break
        failed = {row["name"] for row in rows if row["ended"]}
        row = asdict(job) | {"name": job.name, "shown": job.shown} | measure(job, options, options.limit, failed)
        row["where"] = f"{gpu_name() or cpu_name()}, {package_versions('torch', 'transformers', 'accelerate')}"
        rows.append(json.loads(json.dumps(row)))
        write_text(file, "".join(json.dumps(line) + "\n" for line in rows))
        print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(f"LoRA {options.lora}, whole {options.whole}, batch {options.batch}, {options.steps} steps")
    print("\n".join(sorted({row["where"] for row in rows})))
    print(table(rows))


if __name__ == "__main__":
    main()
