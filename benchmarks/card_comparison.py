"""The card's comparison on equal hardware: a small model that writes more beside larger ones that write less.

    python benchmarks/card_comparison.py --out runs/comparison
    python benchmarks/card_comparison.py --out runs/comparison --engines egm --sizes 8B
    python benchmarks/card_comparison.py --out runs/comparison --sizes 235B-A22B   # on two large GPUs, behind the first

Architecture and random weights of each size, one GPU, a new picture of 640 x 480 each time: one request at a time, and
64 at once, with as many tokens as the paper has for EGM-8B (101, its thinking included) and for a model that answers
directly (42). vLLM runs offline, without a server's costs; `egm` is this package in the same process. Steps are what is
left of a call of 101 tokens without one of a single token. The floor of a step is the time of reading its weights and
cache at the bandwidth of a copy, measured first. vLLM's engines that fit into memory together start together, and are
measured one after the other while the others wait. The 235B is in fp8, in blocks as its published weights are, takes
two GPUs. Mixtures of experts run on vLLM alone. Each row is kept in `results.jsonl`, with the bandwidth of its command:
a later call measures what has none, and prints all. What failed is named below the table, and is measured again then.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from serving import SIDES, copy_bandwidth, make_model

from egm.codecs import get_codec
from egm.environment import gpu_name, package_versions
from egm.files import write_text
from egm.models.costs import cost_model
from egm.models.presets import get_preset
from egm.models.tiny.processor import build_processor

THINKING, DIRECT = 101, 42
"""Tokens of an answer: EGM-8B's, and those of models that answer directly, as the paper has them."""
AT_ONCE = (1, 8, 64)
TOGETHER = (("8B", "30B-A3B"), ("32B",), ("235B-A22B",))
"""Sizes of which vLLM's engines fit into 140 GB together; the last takes two GPUs, and is measured if it is named."""
DENSE = (("8B",), ("32B",))
"""Sizes that `egm` writes by kernels; mixtures of experts go by the library's layers, in minutes for what is asked."""
FP8 = {"235B-A22B": 2}
"""Sizes whose layers are in fp8, and how many GPUs they take."""
PAPER = "the paper: EGM-8B in 737 ms, 5.9 times sooner than the 235B answering directly, 18.9 times than it thinking"
Ask = Callable[[int, int], float]


def vllm_engine(size: str, folder: Path) -> Ask:
    """Start vLLM in this process; ask(count, tokens) returns the seconds of so many requests at once."""
    from vllm import LLM, SamplingParams

    text, gpus = get_preset(size).text, FP8.get(size, 1)
    token_bytes = 4 * text.layers * text.kv_heads * text.head_dim  # keys and values in bfloat16
    engine = LLM(
        str(folder),
        load_format="dummy",
        dtype="bfloat16",
        max_model_len=1024,
        max_num_batched_tokens=16384,
        max_num_seqs=max(AT_ONCE),
        cudagraph_capture_sizes=[1, 2, 4, 8, 16, 32, 64],
        limit_mm_per_prompt={"image": 1, "video": 0},
        gpu_memory_utilization=0.1,  # of which nothing comes, as what the cache takes is told
        kv_cache_memory_bytes=(max(AT_ONCE) + 4) * 640 * token_bytes // gpus,
        tensor_parallel_size=gpus,
    )
    [message], numbers = get_codec("qwen3_vl").messages("the small red cup beside the kettle"), itertools.count()
    prompt = build_processor().apply_chat_template([message], tokenize=False, add_generation_prompt=True)

    def ask(count: int, tokens: int) -> float:
        wanted = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
        given: Any = [{"prompt": prompt, "multi_modal_data": {"image": picture(next(numbers))}} for _ in range(count)]
        start = time.perf_counter()
        answers = engine.generate(given, wanted, use_tqdm=False)
        seconds = time.perf_counter() - start
        assert all(len(answer.outputs[0].token_ids) == tokens for answer in answers)
        return seconds

    return ask


def own_engine(size: str, folder: Path) -> Ask:  # noqa: ARG001 - as the other is called
    """Make this package's model in this process; ask(count, tokens) as of the other."""
    from latency_parts import Rig

    rig = Rig(size)
    return lambda count, tokens: rig.answer("bf16", rig.requests(count), tokens)[0]


ENGINES: dict[str, Callable[[str, Path], Ask]] = {"vllm": vllm_engine, "egm": own_engine}


def in_fp8(folder: Path) -> None:
    """Say in a configuration what that of published fp8 weights says: blocks of 128 x 128, no vision tower."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    vision, text = config["vision_config"], config["text_config"]
    blocks = [f"blocks.{block}.{part}" for block in range(vision["depth"]) for part in ("attn.qkv", "attn.proj")]
    mergers = ["merger", *(f"deepstack_merger_list.{n}" for n in range(len(vision["deepstack_visual_indexes"])))]
    mergers += [f"blocks.{block}.mlp" for block in range(vision["depth"])]
    kept = [f"model.visual.{name}" for name in (*blocks, *(f"{name}.linear_fc{n}" for name in mergers for n in (1, 2)))]
    kept += [f"model.language_model.layers.{layer}.mlp.gate" for layer in range(text["num_hidden_layers"])]
    quantized = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    config["quantization_config"] = quantized | {"modules_to_not_convert": ["lm_head", *kept]}
    file.write_text(json.dumps(config), encoding="utf-8")


def picture(number: int) -> Image.Image:
    """A picture that no cache knows."""
    draw = np.random.default_rng(number)
    return Image.fromarray(draw.integers(0, 255, (SIDES[1], SIDES[0], 3), dtype=np.uint8))


def measure(ask: Ask) -> dict[str, Any]:
    """Medians and spreads of all that is asked, behind two rounds in which graphs are recorded."""
    row: dict[str, Any] = {}
    for count in AT_ONCE:
        rounds = 8 if count == 1 else 3
        seconds: dict[int, list[float]] = {1: [], DIRECT: [], THINKING: []}
        for _, (tokens, taken) in itertools.product(range(2 + rounds), seconds.items()):
            taken.append(ask(count, tokens))
        found = {tokens: statistics.median(taken[2:]) for tokens, taken in seconds.items()}
        row[f"{count}"] = {
            "ms": {tokens: 1e3 * each for tokens, each in found.items()},
            "spread": {tokens: 1e3 * statistics.stdev(taken[2:]) for tokens, taken in seconds.items()},
            "step": 1e3 * (found[THINKING] - found[1]) / (THINKING - 1),
        }
    return row


def inside(engine: str, size: str, folder: Path) -> None:
    """Start an engine, say so, wait until a line comes, measure, and print the row."""
    try:
        ask = ENGINES[engine](size, folder)
        print("ready", file=sys.__stdout__, flush=True)
        sys.stdin.readline()
        row = measure(ask)
    except Exception as error:  # an engine has many ways to fail
        row = {"failed": f"{type(error).__name__}: {str(error).strip()[-300:]}"}
    print(json.dumps(row), file=sys.__stdout__, flush=True)


def rows_of(engine: str, sizes: Sequence[str], place: Path, out: Path) -> Iterator[dict[str, Any]]:
    """Start engines beside each other, and measure one after the other."""
    processes = {}
    for size in sizes:
        make_model(folder := place / f"{engine}-{size}", size)
        if size in FP8:
            in_fp8(folder)
        command = [sys.executable, __file__, "--inside", engine, size, str(folder)]
        with (out / f"{engine}-{size}.txt").open("w") as said:
            processes[size] = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=said, text=True)
    lines = {size: answers(process) for size, process in processes.items()}
    begun = {size: next(each, "") for size, each in lines.items()}
    for size, process in processes.items():
        row = {"failed": f"it ended in its start: see {out / f'{engine}-{size}.txt'}"}
        if begun[size] == "ready":
            process.stdin.write("go\n")
            process.stdin.flush()
            row = json.loads(next(lines[size], "") or json.dumps({"failed": "it ended while it was measured"}))
        elif begun[size]:
            row = json.loads(begun[size])
        process.stdin.close()
        process.wait()
        yield {"engine": engine, "size": size} | row


def answers(process: Any) -> Iterator[str]:
    """The lines that are for this file, among all that an engine prints."""
    return (line.strip() for line in process.stdout if line.strip() == "ready" or line.startswith("{"))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown, then what they say of the card's comparison."""
    measured = [row for row in rows if "failed" not in row]
    heads = ["engine", "size", f"{THINKING} tokens, ms", f"{DIRECT}, ms", "first token, ms", "a step, ms (x floor)"]
    heads += [f"a step of {count}, ms (x floor)" for count in AT_ONCE[1:]]
    heads += [f"64 at once, {THINKING} tokens, req/s", f"{DIRECT} tokens"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in measured:
        one, many = row["1"], row["64"]
        steps = [f"{row[str(n)]['step']:.2f} ({row[str(n)]['step'] / row['floors'][str(n)]:.2f})" for n in AT_ONCE]
        times = [f"{one['ms'][str(tokens)]:.0f} ± {one['spread'][str(tokens)]:.0f}" for tokens in (THINKING, DIRECT, 1)]
        rates = [f"{64e3 / many['ms'][str(tokens)]:.1f}" for tokens in (THINKING, DIRECT)]
        lines.append(f"| {' | '.join([row['engine'], row['size'], *times, *steps, *rates])} |")
    found = {(row["engine"], row["size"]): row for row in measured}
    lines.append("")
    for engine, size in found:
        small = found.get((engine, "8B"))
        if size == "8B" or small is None:
            continue
        pairs = []
        for theirs in (DIRECT, THINKING):
            ratios = [found[engine, size][n]["ms"][str(theirs)] / small[n]["ms"][str(THINKING)] for n in ("1", "64")]
            pairs.append(
                f"{theirs} tokens of {size} take {ratios[0]:.2f} x as long alone, {ratios[1]:.2f} x 64 at once"
            )
        lines.append(f"{engine}: beside 8B writing {THINKING} tokens, {'; '.join(pairs)}")
    lines += [PAPER, *(f"failed: {row['engine']}, {row['size']}: {row['failed']}" for row in rows if "failed" in row)]
    return "\n".join(lines)


def floors(size: str, bandwidth: float) -> dict[str, float]:
    """Milliseconds of a step at least, by how many are written at once: weights and caches read, on all its GPUs."""
    costs = cost_model(size)
    assert costs is not None
    if size in FP8:
        costs, bandwidth = replace(costs, layer_width=1), FP8[size] * bandwidth
    tokens = 347 + THINKING / 2  # of a prompt about such a picture, and half of the answer
    return {str(n): 1e3 * n * costs.pass_over(1, tokens, scored=1, at_once=n).bytes / bandwidth for n in AT_ONCE}


def main() -> None:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--sizes", nargs="+", default=["8B", "30B-A3B", "32B"])
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options.inside[0], options.inside[1], Path(options.inside[2]))
        return
    if options.out is None:
        parser.error("--out says where the rows go")
    options.out.mkdir(parents=True, exist_ok=True)
    file, bandwidth = options.out / "results.jsonl", copy_bandwidth()
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    rows = [row for row in rows if "failed" not in row]
    known = {(row["engine"], row["size"]) for row in rows}
    with tempfile.TemporaryDirectory() as place:
        for engine in options.engines:
            groups = TOGETHER if engine == "vllm" else DENSE
            for group in groups:
                left = [size for size in group if size in options.sizes and (engine, size) not in known]
                for row in rows_of(engine, left, Path(place), options.out):
                    row |= {"copy": bandwidth, "floors": floors(row["size"], bandwidth)}
                    rows.append(json.loads(json.dumps(row)))
                    print(f"[{json.dumps(rows[-1])[:300]}]", file=sys.stderr, flush=True)
                    write_text(file, "".join(json.dumps(each) + "\n" for each in rows))
    versions = package_versions("torch", "transformers", "vllm")
    copies = sorted({f"{row['copy'] / 1e12:.2f}" for row in rows if "copy" in row})
    print(f"{gpu_name()}, copy {', '.join(copies)} TB/s, {versions}, {date.today()}\n")
    print(table(rows))


if __name__ == "__main__":
    main()
