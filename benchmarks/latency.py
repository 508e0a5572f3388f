"""How near the floor grounding in this process is: the first token, each further one, and requests, on one NVIDIA GPU.

    python benchmarks/latency.py --out runs/latency
    python benchmarks/latency.py --out runs/latency --only first-token decode --ways bf16 no-kernels --again

The model has the size's architecture and random weights, made on the GPU; its tokenizer is egm-tiny's. Every request
shows a new picture of 640 x 480, unless its part says else; drafts are of recorded texts, which are replayed. A floor
is the time of reading weights and cache at the bandwidth of a copy, or that of the products at the speed of a large
one, whichever is longer; both are measured first. Times are from pictures in memory to the text, medians, behind calls
that record graphs. Each row is written to `results.jsonl` at once: what is there is not measured again, unless by
`--again`, so a run that was cut goes on. A part that breaks the GPU's state ends its process alone; what failed is
named below the table.

On a CPU the same code runs with few tokens and small pictures, such as `--size tiny-s`: to be tested, not to be quoted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from latency_parts import PARTS, WAYS, Rig

from egm.environment import gpu_name

_PLAN = [  # the most telling first, where time is short
    *((part, "bf16") for part in ("first-token", "decode", "request", "together", "phrases")),
    *((part, "fp8") for part in ("decode", "request")),
    *((part, "bf16") for part in ("sizes", "drafts", "batches", "tokens")),
    *(("first-token", way) for way in ("no-kernels", "no-prefill-graphs", "host-pixels")),
    *((part, "no-kernels") for part in ("decode", "request")),
    *((part, "fp8") for part in ("together", "phrases")),
    *((part, "no-graphs") for part in ("first-token", "request")),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="8b")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts; all by default")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, help="with --only, ways of these parts that are not planned too"
    )
    parser.add_argument("--seconds", type=float, default=450, help="most of all parts; the last ones are cut")
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.jsonl"
    if options.inside:
        run(file, options.size, planned(options))
        return
    if options.again:
        file.unlink(missing_ok=True)
    end = time.monotonic() + options.seconds
    while left(file, planned(options)) and (remaining := end - time.monotonic()) > 5:
        if not attempt(file, remaining):
            break
    print(table(lines_of(file)), flush=True)


def planned(options: Any) -> list[tuple[str, str]]:
    """The parts and ways to measure, in order."""
    if options.only and options.ways:
        plan = [(part, way) for way in options.ways for part in options.only]
    else:
        plan = [(part, way) for part, way in _PLAN if part in (options.only or PARTS) and way in (options.ways or WAYS)]
    return [(part, way) for part, way in plan if way != "fp8" or torch.cuda.is_available()]


def attempt(file: Path, seconds: float) -> bool:
    """Measure in a process of its own what is left; False if there is no time for more."""
    before = len(lines_of(file))
    command = [sys.executable, __file__, *sys.argv[1:], "--inside"]
    command = [word for word in command if word != "--again"]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that compile
            return False
    lines = lines_of(file)
    begun = [tuple(line["begun"]) for line in lines if "begun" in line]
    if code == 0:
        return True
    if not begun or len(lines) == before:
        write(file, {"failed": ["all", ""], "error": f"the process ended with {code} before it measured anything"})
        return False
    if begun[-1] not in ended(lines):
        write(file, {"failed": begun[-1], "error": f"the process ended with {code}"})
    return True


def run(file: Path, size: str, plan: Sequence[tuple[str, str]]) -> None:
    """Measure what is not there yet."""
    begun = time.perf_counter()
    rig = Rig(size)
    write(file, {"about": about(rig, size), "made_in": time.perf_counter() - begun})
    for part, way in plan:
        if (part, way) in ended(lines_of(file)):
            continue
        start = time.perf_counter()
        write(file, {"begun": [part, way]})
        try:
            for row in PARTS[part](rig, way):
                write(file, {"part": part, "way": way} | row)
        except Exception as error:  # whatever fails, the other parts are worth having
            frame = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {str(error).strip()[-300:]} ({Path(frame.filename).name}:{frame.lineno})"
            write(file, {"failed": [part, way], "error": said})
            print(traceback.format_exc(), file=sys.stderr, flush=True)
            rig.forget()
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # raises where the GPU's state is broken, and another process goes on
            continue
        seconds = time.perf_counter() - start
        write(file, {"done": [part, way], "seconds": seconds})
        print(f"[{part}, {way}: {seconds:.0f} s]", flush=True)
    rig.forget()


def about(rig: Rig, size: str) -> dict[str, Any]:
    """What was measured, on what, and what floors are made of."""
    import transformers

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    try:
        import triton
    except ImportError:
        pass
    else:
        versions["triton"] = triton.__version__
    card = gpu_name() if torch.cuda.is_available() else "CPU"
    speed = {"copy_tb_s": rig.bandwidth / 1e12, "product_tflops": rig.speed / 1e12}
    return {"card": card, "versions": versions, "size": size, "dtype": rig.dtype} | speed


def write(file: Path, line: dict[str, Any]) -> None:
    """Append a line, behind one that was cut off if the last one was."""
    torn = file.exists() and file.stat().st_size and not file.read_bytes().endswith(b"\n")
    with file.open("a", encoding="utf-8") as stream:
        stream.write("\n" * bool(torn) + json.dumps(line) + "\n")


def lines_of(file: Path) -> list[dict[str, Any]]:
    """What is there; a line that was cut off is left out."""
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def ended(lines: Sequence[dict[str, Any]]) -> set[tuple[str, str]]:
    return {tuple(line[name]) for line in lines for name in ("done", "failed") if name in line}


def left(file: Path, plan: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """What is neither done nor failed."""
    there = ended(lines_of(file))
    return [] if ("all", "") in there else [each for each in plan if each not in there]


def table(lines: Sequence[dict[str, Any]]) -> str:
    """All rows, the last of each case, below what they were measured on."""
    head = next((line["about"] for line in reversed(lines) if "about" in line), {})
    versions = ", ".join(f"{name} {number}" for name, number in head.get("versions", {}).items())
    text = [
        f"{head.get('card')}; {versions}; {head.get('size')}, {head.get('dtype')}, random weights",
        f"copy {head.get('copy_tb_s', 0):.2f} TB/s, a large product {head.get('product_tflops', 0):.0f} TFLOP/s",
        "",
        "| part | way | case | ms | floor ms | x floor | requests/s | peak GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = {(line["part"], line["way"], line["case"]): line for line in lines if "case" in line}
    for (part, way, case), row in rows.items():
        floor = 1e3 * row["floor"] if row.get("floor") else None
        figures = [row["ms"], floor, row["ms"] / floor if floor else None, row.get("rate"), row.get("gb")]
        cells = ["" if value is None else f"{value:.{1 if value >= 100 else 2}f}" for value in figures]
        text.append("| " + " | ".join([part, way, case, *cells]) + " |")
    text += [f"FAILED {' '.join(line['failed'])}: {line['error']}" for line in lines if "failed" in line]
    return "\n".join(text)


if __name__ == "__main__":
    main()
