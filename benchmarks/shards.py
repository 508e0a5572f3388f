"""What cutting an evaluation into shards and merging them costs, beside the run that is not cut.

    uv run python benchmarks/shards.py --data ../shared/data/refcoco
    uv run python benchmarks/shards.py --shards 64

The eight splits of RefCOCO, RefCOCO+ and RefCOCOg, with JPEGs of the sizes that the rows say, answered by a
script: in one run, then in shards, which are merged. That is measured twice: in one process, which opens the splits
once, and by commands, a process each, as on several machines: `egm eval --suite refcoco`, with `--shard 1/8` and so on,
and `egm eval merge`. Processor time is told of the run, of all shards and of the merge; of commands it is all that
their processes take, the start of Python and imports included, which are told apart too, as no way to cut a run can do
without them. Their modules are compiled beforehand, as those of an installed package are. Without --data as many
made-up rows about as many pictures are asked. Exit code 1 if a merged run is not the run that was not cut, to the byte.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from egm.codecs import get_codec
from egm.datasets import Dataset
from egm.datasets.refcoco import EVALUATION, SIZES
from egm.evaluate import Shard, evaluate, merge_runs
from egm.evaluate.replay import read_script
from egm.evaluate.suites import open_suite
from egm.grounder import Grounder

IMAGES = 6_549
ANSWER = r"One of several.\n</think>\n\n" + '[{"bbox_2d": [100, 100, 500, 490], "label": "the person"}]'
FIGURES = ("journal.jsonl", "summary.json")


def write_rows(folder: Path) -> None:
    """As many rows as the eight splits have, in MiniGPT-4's form."""
    number = 0
    for split in EVALUATION:
        rows = []
        for _ in range(SIZES[split].expressions):
            name = f"COCO_train2014_{number % IMAGES:012}_{number}"
            sent = f"the person number {number} from the left"
            rows.append({"img_id": name, "sents": sent, "bbox": [6.4, 4.8, 25.6, 19.2], "height": 480, "width": 640})
            number += 1
        (folder / f"{split.replace('/', '_')}.json").write_text(json.dumps(rows))


def write_pictures(splits: Mapping[str, Dataset], folder: Path) -> None:
    """JPEGs of the sizes that the rows say, with about as many bytes as COCO's have."""
    pixels = np.random.default_rng(0)
    by_size: dict[object, Path] = {}
    for sample in (sample for data in splits.values() for sample in data.annotations()):
        assert sample.size is not None
        path = folder / Path(str(sample.image)).name
        if path.exists():
            continue
        if sample.size not in by_size or by_size[sample.size].stat().st_nlink > 500:
            width, height = sample.size
            blotches = pixels.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
            Image.fromarray(blotches).resize(sample.size, Image.Resampling.BICUBIC).save(path, "JPEG", quality=80)
            by_size[sample.size] = path
        else:
            path.hardlink_to(by_size[sample.size])


def command(arguments: Sequence[str], program: Sequence[str] = ("-m", "egm.cli")) -> float:
    """Run a command; seconds of processor time that it took."""
    before = os.times()
    done = subprocess.run([sys.executable, *program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"egm {' '.join(arguments)}: {done.stderr.strip()}")
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def here(work: Callable[[], object]) -> float:
    """Do work in this process; seconds of processor time that it took."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def starting() -> float:
    """Seconds of processor time until `egm eval` could begin; its modules are compiled by then."""
    program = "-c", "import egm.cli, egm.cli.eval, egm.cli.run_figures, egm.evaluate.replay, egm.evaluate.suites"
    command([], program)
    return min(command([], program) for _ in range(5))


def tell(what: str, whole: float, each: Sequence[float], merging: float, folder: Path) -> None:
    """Print what was measured, and compare journals and figures."""
    more = sum(each) + merging - whole
    print(f"{what}: {whole:.1f} s of processor time for one run")
    least, most = min(each), max(each)
    print(f"  {len(each)} shards {sum(each):.1f} s, {least:.1f} to {most:.1f} s each, and merging {merging:.1f} s")
    print(f"  overhead {more:.1f} s, which is {more / whole:.1%} of the one run", flush=True)
    for name in FIGURES:
        texts = [(folder / run / name).read_bytes() for run in ("whole", "merged")]
        if name == "journal.jsonl":
            texts = [text.split(b"\n", 1)[1] for text in texts]  # its header has command and time
        if len(set(texts)) > 1:
            sys.exit("the merged run is not the one that was not cut")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the annotations of the eight splits")
    parser.add_argument("--shards", type=int, default=8)
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures, data = folder / "pictures", options.data or folder / "data"
        pictures.mkdir()
        if options.data is None:
            data.mkdir()
            write_rows(data)
        open_splits = partial(open_suite, "refcoco", data=data, images=pictures, allow_partial=options.data is None)
        write_pictures(open_splits(), pictures)
        script = folder / "script.txt"
        script.write_text(ANSWER)
        numbers = range(1, options.shards + 1)

        splits = open_splits()
        asked = [(split, sample) for split, samples in splits.items() for sample in samples]
        grounder = Grounder(read_script(script, asked), get_codec("qwen3_vl"))
        once = folder / "once"
        run = partial(evaluate, splits, grounder, progress=False)
        whole = here(partial(run, once / "whole"))
        each = [here(partial(run, once / f"{n}", shard=Shard(n, options.shards))) for n in numbers]
        merging = here(partial(merge_runs, [once / f"{number}" for number in numbers], once / "merged"))
        tell("in one process", whole, each, merging, once)
        del asked, splits, grounder, run

        apart = folder / "apart"
        words = ["eval", "--suite", "refcoco", "--script", str(script), "--data-root", str(data)]
        words += ["--images", str(pictures), *([] if options.data else ["--allow-partial"]), "--json", "--out"]
        os.environ |= {"PYTHONWARNINGS": "ignore", "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        start = starting()
        whole = command([*words, str(apart / "whole")])
        each = [command([*words, str(apart / f"{n}"), "--shard", f"{n}/{options.shards}"]) for n in numbers]
        shards = [str(apart / f"{number}") for number in numbers]
        merging = command(["eval", "merge", *shards, "--json", "--out", str(apart / "merged")])
        tell(f"by {options.shards + 2} commands", whole, each, merging, apart)
        more = start * options.shards  # of all shards but one, and of the merge
        print(f"  start and imports {start:.2f} s a command: {more:.1f} s of the overhead, {more / whole:.1%}")


if __name__ == "__main__":
    main()
