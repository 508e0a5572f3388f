"""What cutting an evaluation into shards and merging them costs, beside the run that is not cut.

    uv run python benchmarks/shards.py
    uv run python benchmarks/shards.py --shards 64

As many samples and images as the eight splits of RefCOCO, RefCOCO+ and RefCOCOg have, answered by a script: in one run,
then in shards, one after the other, which are merged. Processor time is told of the run, of all shards and of the
merge. What a process takes to start and to open a dataset is not in it, and comes once more with each shard. Exit code
1 if the merged run is not that run, to the byte.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from PIL import Image

from egm.backends import ReplayBackend
from egm.boxes import Box
from egm.codecs import get_codec
from egm.evaluate import Shard, evaluate, merge_runs
from egm.evaluate.plan import seed_index_of
from egm.grounder import Grounder
from egm.types import Completion, Sample

EXPRESSIONS, IMAGES = 57_457, 6_549
R = TypeVar("R")


def timed(work: Callable[[], R]) -> tuple[float, R]:
    """Seconds of processor time that work took, and its result."""
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=EXPRESSIONS)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), help="width and height of the pictures")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        picture = folder / "picture.jpg"
        Image.new("RGB", options.size, "grey").save(picture)
        pictures = [folder / f"{i}.jpg" for i in range(min(IMAGES, options.samples))]
        for file in pictures:
            file.hardlink_to(picture)
        box = Box(6.4, 4.8, 32, 24)
        samples = [
            Sample(f"{i}", pictures[i % len(pictures)], f"the person number {i} from the left", box)
            for i in range(options.samples)
        ]
        text = "One of several.\n</think>\n\n" + '[{"bbox_2d": [100, 100, 500, 490], "label": "the person"}]'
        answers = {seed_index_of("bench", s.id): [Completion(text, completion_tokens=30)] for s in samples}

        def run(name: str, shard: Shard | None = None) -> None:
            grounder = Grounder(ReplayBackend(answers), get_codec("qwen3_vl"))
            evaluate(samples, grounder, folder / name, name="bench", shard=shard, progress=False)

        whole, _ = timed(lambda: run("whole"))
        numbers = range(1, options.shards + 1)
        names = [f"shard-{number}" for number in numbers]
        each = [timed(partial(run, names[n - 1], Shard(n, options.shards)))[0] for n in numbers]
        merging, merged = timed(lambda: merge_runs([folder / name for name in names], folder / "merged"))
        more, shards = sum(each) + merging - whole, sum(each)
        print(f"one run: {whole:.1f} s of processor time for {len(merged.records):,} samples")
        print(
            f"{len(names)} shards: {shards:.1f} s, {min(each):.1f} to {max(each):.1f} s each; merged in {merging:.1f} s"
        )
        print(f"overhead: {more:.1f} s, which is {more / whole:.1%} of the one run")
        parts = [(folder / name / "journal.jsonl").read_bytes().split(b"\n", 1)[1] for name in ("whole", "merged")]
        figures = [(folder / name / "summary.json").read_bytes() for name in ("whole", "merged")]
        if len(set(parts)) > 1 or len(set(figures)) > 1:
            sys.exit("the merged run is not the one that was not cut")


if __name__ == "__main__":
    main()
