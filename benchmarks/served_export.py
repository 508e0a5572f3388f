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
from pathlib import Path

from egm.backends import GenerationSettings
from egm.backends.checkpoint import find_checkpoint
from egm.datasets.synthetic import SynthRef
from egm.evaluate import ERROR, evaluate
from egm.grounder import Grounder
from egm.journal import Record
from egm.publish.export import export_model
from egm.serve import serve

ENGINES = ("vllm", "sglang", "transformers")


def answer(grounder: Grounder, scenes: int, folder: Path) -> tuple[dict[tuple[str, str], Record], float]:
    """Evaluate on the first scenes of val; returns the records and the seconds that it took."""
    start = time.perf_counter()
    run = evaluate({"synthref/val": list(SynthRef("val", scenes=scenes))}, grounder, folder, progress=False)
    return {record.key: record for record in run.records}, time.perf_counter() - start


def main() -> None:
    """Print a line a side, and how many texts are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=ENGINES, default="vllm")
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
        with serve(str(folder), options.engine, dtype="bfloat16", passed_on=options.more) as server:
            connection = {"concurrency": options.concurrency, "settings": settings}
            with Grounder.connect(server.url, server.model, codec=server.codec, **connection) as there:
                served, seconds = answer(there, options.scenes, place / "served")
            latency = [sys.executable, "-m", "egm.cli", "bench", "latency", "--server", server.url]
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
