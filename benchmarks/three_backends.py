"""Evaluate one model through three backends, and see whether they agree: each split's accuracy to 0.1 point.

    uv run python benchmarks/three_backends.py --scenes 25
    uv run python benchmarks/three_backends.py --model runs/egm-tiny --splits val test-simple test-complex test-amodal

The same samples of SynthRef are asked in this process, of `transformers serve` on the CPU in float32, and of the
journal that the first run left, which is replayed. Engines add up in different orders, so that near-ties may fall
otherwise: how many texts differ stands beside the accuracies. Exit code 1 if an accuracy differs by more than
`--tolerance` points, or a replayed text at all. Needs transformers[serving].
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from egm.backends import GenerationSettings
from egm.backends.checkpoint import find_checkpoint
from egm.cli.script import read_script
from egm.datasets.synthetic import SynthRef
from egm.evaluate import ERROR, evaluate
from egm.grounder import Grounder
from egm.journal import Record
from egm.types import Sample

SPLITS = ("val", "test-simple", "test-complex", "test-amodal")
NAMES = ("in process", "transformers serve", "replayed journal")


@contextmanager
def serve(model: str, home: Path) -> Iterator[str]:
    """Run `transformers serve` on a free port; yields its URL.

    Args:
        model: A model folder.
        home: An empty folder for caches and the log.
    """
    program = shutil.which("transformers", path=sysconfig.get_path("scripts"))
    assert program is not None
    (home / "hub").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    plain = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [program, "serve", model, "--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1"]
    with (home / "log").open("wb") as log:
        child = subprocess.Popen(
            [*command, "--port", str(port)], env={**os.environ, **plain}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", child, home / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait(timeout=30)


def _wait_for(health: str, child: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        try:
            with opener.open(health, timeout=5):
                return
        except OSError:
            try:
                child.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                continue
    sys.exit(f"transformers serve did not start: {log.read_text(errors='replace')[-2000:]}")


def run(
    model: str, url: str, splits: dict[str, list[Sample]], settings: GenerationSettings, folder: Path
) -> list[list[Record]]:
    """Evaluate through each of the backends in turn; `url` is where the model is served."""
    here = Grounder.load(model, settings=settings)
    found = [evaluate(splits, here, folder / "here").records]
    there = Grounder.connect(url, str(find_checkpoint(model).path), codec=here.codec, concurrency=2, settings=settings)
    found.append(evaluate(splits, there, folder / "there").records)
    there.backend.close()  # type: ignore[attr-defined]
    again = Grounder(read_script(folder / "here", ()), here.codec, settings=settings)
    return [*found, evaluate(splits, again, folder / "again").records]


def report(found: list[list[Record]], tolerance: float) -> bool:
    """Print a line a split; tell whether all agree."""
    agree = True
    print(f"{'split':<24}{'samples':>8}  " + "  ".join(f"{name:>18}" for name in NAMES) + "   other texts")
    by_key = [{record.key: record for record in records} for records in found]
    for split in dict.fromkeys(record.split for record in found[0]):
        keys = [key for key in by_key[0] if key[0] == split]
        scores = [100 * sum(records[key].iou >= 0.5 for key in keys) / len(keys) for records in by_key]
        others = [sum(records[key].text != by_key[0][key].text for key in keys) for records in by_key[1:]]
        errors = sum(records[key].failure == ERROR for records in by_key for key in keys)
        print(
            f"{split:<24}{len(keys):>8}  "
            + "  ".join(f"{score:>18.2f}" for score in scores)
            + f"   {others[0]} served, {others[1]} replayed"
            + (f"; {errors} errors" if errors else "")
        )
        # A hair is left to rounding: 0.1 point itself is allowed.
        agree = agree and max(scores) - min(scores) <= tolerance + 1e-9 and not others[1] and not errors
    return agree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="egm-tiny", help="egm-tiny or a model folder")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="of SynthRef")
    parser.add_argument("--scenes", type=int, help="only the first scenes of each split, about four samples each")
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--tolerance", type=float, default=0.1, help="points of Acc@0.5 that may lie between them")
    options = parser.parse_args()
    splits = {f"synthref/{name}": list(SynthRef(name, scenes=options.scenes)) for name in options.splits}
    settings = GenerationSettings(max_new_tokens=options.max_tokens)
    with tempfile.TemporaryDirectory() as folder:
        (home := Path(folder) / "serve").mkdir()
        with serve(str(find_checkpoint(options.model).path), home) as url:
            found = run(options.model, url, splits, settings, Path(folder))
    agree = report(found, options.tolerance)
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()
