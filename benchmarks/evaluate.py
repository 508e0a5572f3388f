"""How fast samples go through evaluation without a model, how much memory that takes, and how long resuming does.

uv run python benchmarks/evaluate.py

As many samples and images as the eight splits of RefCOCO, RefCOCO+ and RefCOCOg have, answered by the scripted backend.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from PIL import Image

from egm.backends import ReplayBackend
from egm.boxes import Box
from egm.codecs import get_codec
from egm.evaluate import evaluate
from egm.evaluate.plan import seed_index_of
from egm.grounder import Grounder
from egm.types import Completion, Sample

EXPRESSIONS, IMAGES = 57_457, 6_549


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=EXPRESSIONS)
    options = parser.parse_args()

    pictures = [Image.new("RGB", (64, 48)) for _ in range(IMAGES)]
    samples = [
        Sample(
            f"bench/{i}", pictures[i % IMAGES], f"the person number {i} from the left", Box(6.4, 4.8, 32, 24), (64, 48)
        )
        for i in range(options.samples)
    ]
    thought = "The phrase names one person among several, so I compare them from the left to the right. " * 6
    text = f'{thought}\n</think>\n\n```json\n[{{"bbox_2d": [100, 100, 500, 490], "label": "the person"}}]\n```'
    reply = Completion(text, completion_tokens=len(text.split()), reasoning_tokens=len(thought.split()))
    answers = {seed_index_of("bench", sample.id): [reply] for sample in samples}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("run", "resume"):
            started = time.perf_counter()
            grounder = Grounder(ReplayBackend(answers), get_codec("qwen3_vl"))
            result = evaluate(samples, grounder, folder, name="bench", progress=False)
            seconds = time.perf_counter() - started
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            size = (Path(folder) / "journal.jsonl").stat().st_size / 2**20
            accuracy = result.summary()["all"]["accuracy"]
            print(
                f"{name}: {len(result.records):,} samples in {seconds:.1f} s, peak memory {peak:.0f} MB, "
                f"journal {size:.0f} MB, Acc@0.5 {accuracy:.2f}"
            )


if __name__ == "__main__":
    main()
