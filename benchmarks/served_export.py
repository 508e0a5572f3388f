"""Export a model, serve the folder with vLLM, SGLang or transformers, and compare the answers with this process's.

    python benchmarks/served_export.py                               # egm-tiny, vLLM
    python benchmarks/served_export.py --engine sglang --model runs/egm-8b --scenes 50

The folder is what `egm models export` writes; the server has it through the engine's own loader, and is asked through
the OpenAI protocol, as `egm eval --server` does. Both sides compute in bfloat16, with other kernels, so that texts may
differ where two tokens are nearly as likely; accuracies should not. Latency is that of `egm bench latency --server`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from three_backends import free_ports, wait_for

from egm.backends import GenerationSettings
from egm.backends.checkpoint import find_checkpoint
from egm.datasets.synthetic import SynthRef
from egm.evaluate import ERROR, evaluate
from egm.grounder import Grounder
from egm.journal import Record
from egm.publish.export import export_model

COMMANDS = {
    "transformers": "-m transformers.cli.transformers serve {folder} --host 127.0.0.1 --port {port} --dtype bfloat16",
    "vllm": "-m vllm.entrypoints.openai.api_server --model {folder} --host 127.0.0.1 "
    "--port {port} --dtype bfloat16 --max-model-len 2048 --gpu-memory-utilization 0.4",
    "sglang": "-m sglang.launch_server --model-path {folder} --host 127.0.0.1 --port {port} "
    "--dtype bfloat16 --context-length 2048 --mem-fraction-static 0.4",
}


@contextmanager
def serve(engine: str, folder: Path, log: Path, more: list[str]) -> Iterator[str]:
    """Run a server on a free port; yields its URL."""
    [port] = free_ports(1)
    command = COMMANDS[engine].format(folder=folder, port=port).split()
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, *command, *more], stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", child, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait(timeout=60)


def answer(grounder: Grounder, scenes: int, folder: Path) -> tuple[dict[tuple[str, str], Record], float]:
    """Evaluate on the first scenes of val; returns the records and the seconds that it took."""
    start = time.perf_counter()
    run = evaluate({"synthref/val": list(SynthRef("val", scenes=scenes))}, grounder, folder, progress=False)
    return {record.key: record for record in run.records}, time.perf_counter() - start


def main() -> None:
    """Print a line a side, and how many texts are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=COMMANDS, default="vllm")
    parser.add_argument("--model", default="egm-tiny", help="egm-tiny, a run folder or a model folder")
    parser.add_argument("--scenes", type=int, default=100, help="about four questions each")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", default="", help="options of egm bench latency, which has its own defaults")
    parser.add_argument("more", nargs="*", help="further options of the server, after --")
    options = parser.parse_args()
    settings = GenerationSettings(max_new_tokens=512)
    source = find_checkpoint(options.model).path if options.model == "egm-tiny" else Path(options.model)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folder = export_model(source, place / "model")
        log = place / "log"
        with serve(options.engine, folder, log, options.more) as url:
            with Grounder.connect(url, str(folder), concurrency=options.concurrency, settings=settings) as there:
                served, seconds = answer(there, options.scenes, place / "served")
            latency = [sys.executable, "-m", "egm.cli", "bench", "latency", "--server", url, "--model", str(folder)]
            subprocess.run([*latency, *options.latency.split()], check=False)
        here = Grounder.load(str(folder), settings=settings, batch_size=256)
        own, own_seconds = answer(here, options.scenes, place / "here")
    for side, records, taken in ((options.engine, served, seconds), ("in process", own, own_seconds)):
        accuracy = 100 * sum(record.hit() for record in records.values()) / len(records)
        errors = sum(record.failure == ERROR for record in records.values())
        tokens = sum(record.completion_tokens or 0 for record in records.values())
        print(f"{side:12}{len(records):6} answers{tokens:8} tokens{taken:8.1f} s", end="")
        print(f"  Acc@0.5 {accuracy:6.2f}  {errors} errors")
    equal = sum(served[key].text == own[key].text for key in own)
    print(f"{equal} of {len(own)} texts are equal")


if __name__ == "__main__":
    main()
