"""Evaluate one model through three backends, and see whether they agree: each split's accuracy to 0.1 point.

    uv run python benchmarks/three_backends.py --scenes 25
    uv run python benchmarks/three_backends.py --servers 30 --folder runs/three --minutes 10
    uv run python benchmarks/three_backends.py --report-only runs/three other-machine/three

The same samples of SynthRef are asked in this process, of `transformers serve` on the CPU in float32, and of the
journal that the first run left, which is replayed. Engines add up in different orders, so that near-ties may fall
otherwise: how many texts differ stands beside the accuracies. Only what all three have answered is compared. Exit code
1 if an accuracy differs by more than `--tolerance` points, or a replayed text at all. Needs transformers[serving].

`transformers serve` answers one request after the other, so `--servers` runs as many, each with a core, a client and
an evaluation in process of its own; give as many as there are cores. The samples are cut by scene into 128 parts, the
same whatever the options, with journals of their own: with `--folder` the same command goes on where it was ended,
`--shard` takes a share of the parts on one of several machines, and `--report-only` reads what they brought home.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from egm.backends import GenerationSettings
from egm.backends.checkpoint import find_checkpoint
from egm.datasets.synthetic import SynthRef
from egm.errors import EgmError
from egm.evaluate import ERROR, evaluate
from egm.evaluate.replay import read_script
from egm.grounder import Grounder
from egm.journal import JOURNAL_NAME, Record, read_journal
from egm.types import Sample

SPLITS = ("val", "test-simple", "test-complex", "test-amodal")
NAMES = {"here": "in process", "served": "transformers serve", "replayed": "replayed journal"}
PARTS = 128


@dataclass(frozen=True)
class Job:
    """What is to be answered, and how.

    Attributes:
        model: egm-tiny or a model folder.
        weights: Digest of its weights.
        folder: Where the journals go.
        settings: How text is generated.
        splits: Splits of SynthRef.
        scenes: How many scenes of each; None takes all.
        only: "here" or "served", to leave the other out.
        stream: Whether to ask the server for tokens as they come.
    """

    model: str
    weights: str
    folder: Path
    settings: GenerationSettings
    splits: Sequence[str] = SPLITS
    scenes: int | None = None
    only: str | None = None
    stream: bool = False

    def samples(self, part: int) -> dict[str, list[Sample]]:
        """The samples of a part, by split: those of every 128th scene."""
        found: dict[str, list[Sample]] = {}
        for name in self.splits:
            data = SynthRef(name, scenes=self.scenes)
            assert data.scenes is not None
            samples = [sample for scene in range(part, data.scenes, PARTS) for sample in data.samples(scene)]
            found |= {f"synthref/{name}": samples} if samples else {}
        return found


@contextmanager
def serve(model: str, home: Path, port: int | None = None) -> Iterator[str]:
    """Run `transformers serve` on one core; yields its URL.

    Args:
        model: A model folder.
        home: An empty folder for caches and the log.
        port: Where; None finds a free one.
    """
    (home / "hub").mkdir()
    port = port or free_ports(1)[0]
    plain = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", model, "--device", "cpu"]
    with (home / "log").open("wb") as log:
        child = subprocess.Popen(
            [*command, "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, **plain},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the server
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", child, home / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def free_ports(count: int) -> list[int]:
    """Find ports that are free, each another."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def wait_for(health: str, child: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server says that it is well, some minutes at most; end with its log if it does not come up."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(1500):
        try:
            with opener.open(health, timeout=5):
                return
        except OSError:
            try:
                child.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                continue
    sys.exit(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


def load(job: Job) -> Grounder:
    """The model in this process, as `Grounder.load` gives it on the CPU."""
    return Grounder.load(job.model, device="cpu", settings=job.settings)


def connect(job: Job, url: str, here: Grounder) -> Grounder:
    """The model behind a server, one request at a time."""
    model = str(find_checkpoint(job.model).path)
    return Grounder.connect(
        url, model, codec=here.codec, concurrency=1, settings=job.settings, stream=job.stream, stall_seconds=600.0
    )


def answer(job: Job, part: int, here: Grounder, there: Grounder | None) -> None:
    """Answer what is left of a part; without a server, in this process alone."""
    splits, folder = job.samples(part), job.folder / f"part-{part:03}"
    if not splits:
        return
    if job.only != "served":
        _evaluate(job, splits, here, folder / "here")
        again = Grounder(read_script(folder / "here", ()), here.codec, settings=job.settings)
        _evaluate(job, splits, again, folder / "replayed")
    if there is not None:
        _evaluate(job, splits, there, folder / "served")


def _evaluate(job: Job, splits: Mapping[str, list[Sample]], grounder: Grounder, folder: Path) -> None:
    engine = {"weights": job.weights, "numbers": "float32", "stream": job.stream}
    run = evaluate(splits, grounder, folder, engine=engine, retry_errors=True, progress=False)
    if run.stopped:
        sys.exit(f"{folder}: {run.stopped}")


def work(job: Job, parts: Sequence[int], begun: Any, port: int) -> None:
    """Answer part after part beside other processes, until none is left, or SIGTERM comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent turns Ctrl-C into SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with ExitStack() as stack:
        here, there = load(job), None
        if job.only != "here":
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url = stack.enter_context(serve(str(find_checkpoint(job.model).path), home, port))
            there = stack.enter_context(connect(job, url, here))
        while True:
            with begun:
                number, begun.value = begun.value, begun.value + 1
            if number >= len(parts):
                return
            answer(job, parts[number], here, there)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def answer_all(job: Job, parts: Sequence[int], servers: int, minutes: float) -> bool:
    """Answer parts in several processes until all are done or the time is up; tell whether none of them failed."""
    os.environ["OMP_NUM_THREADS"] = "1"  # the cores are for processes
    context = multiprocessing.get_context("spawn")
    begun = context.Value("i", 0)
    workers = [context.Process(target=work, args=(job, parts, begun, port)) for port in free_ports(servers)]
    end = time.monotonic() + 60 * minutes
    try:
        for worker in workers:
            worker.start()
        told = 0
        while (left := end - time.monotonic()) > 0 and (alive := [worker for worker in workers if worker.is_alive()]):
            alive[0].join(min(left, 10.0))
            if told < (told := min(begun.value, len(parts))):
                print(f"{told} of {len(parts)} parts begun", file=sys.stderr)
    finally:
        for worker in workers:
            worker.terminate()  # what was answered is in the journals
        for worker in workers:
            worker.join()
    return all(worker.exitcode in (0, -signal.SIGTERM) for worker in workers)


@dataclass
class Side:
    """What one backend answered: its records by split and id, and what its journals say about it."""

    records: dict[tuple[str, str], Record] = field(default_factory=dict)
    engines: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        seconds = [record.seconds for record in self.records.values() if record.failure != ERROR]
        mean = sum(seconds) / len(seconds) if seconds else 0.0
        rate = f", {mean:.2f} s each, {1 / mean:.2f} a second" if mean else ""
        return f"{', '.join(sorted(self.engines)) or 'nothing'}; {len(self.records)} answered{rate}"


def collect(folders: Iterable[Path]) -> dict[str, Side]:
    """Read the journals of all parts in the folders.

    Raises:
        EgmError: If they are not of the same model and settings, or there are none.
    """
    sides = {name: Side() for name in NAMES}
    seen: dict[str, Path] = {}
    for file in (file for folder in folders for file in sorted(folder.glob(f"part-*/*/{JOURNAL_NAME}"))):
        if not file.stat().st_size:  # ended as it began
            continue
        header, records = read_journal(file)
        seen.setdefault(json.dumps([header.settings, header.engine["weights"]], sort_keys=True), file)
        if len(seen) > 1:
            one, other = seen.values()
            raise EgmError(f"{one} and {other} are of other weights or settings: report them apart")
        side = sides[file.parent.name]
        side.records |= {record.key: record for record in records}
        side.engines.add(str(header.engine["backend"]))
    if not seen:
        raise EgmError("there are no journals: give folders that --folder named")
    return sides


def report(sides: Mapping[str, Side], tolerance: float) -> bool:
    """Print a line a split, of the samples that all have answered; tell whether they agree."""
    here, *others = (sides[name].records for name in NAMES)
    common = [key for key in here if all(key in records for records in others)]
    agree = bool(common)
    print(f"{'split':<24}{'samples':>8}  " + "  ".join(f"{name:>18}" for name in NAMES.values()) + "   other texts")
    for split in [*sorted({key[0] for key in common}), *(["all"] if common else [])]:
        keys = [key for key in common if split in ("all", key[0])]
        scores = [100 * sum(records[key].hit() for key in keys) / len(keys) for records in (here, *others)]
        served, replayed = (sum(records[key].text != here[key].text for key in keys) for records in others)
        errors = sum(records[key].failure == ERROR for records in (here, *others) for key in keys)
        print(
            f"{split:<24}{len(keys):>8}  "
            + "  ".join(f"{score:>18.2f}" for score in scores)
            + f"   {served} served, {replayed} replayed"
            + (f"; {errors} errors" if errors else "")
        )
        # A hair is left to rounding: 0.1 point itself is allowed.
        agree = agree and max(scores) - min(scores) <= tolerance + 1e-9 and not replayed and not errors
    for name, side in sides.items():
        print(f"{NAMES[name]}: {side}")
    return agree


def digest(model: str) -> str:
    """Name the weights of a model by what they are."""
    found = hashlib.sha256()
    for file in sorted(Path(find_checkpoint(model).path).glob("*.safetensors")):
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()[:16]


def shard(text: str) -> list[int]:
    """The parts of a share that is written as "1/2": the first of two."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no share: write the first of two as 1/2")
    return list(range(int(number) - 1, PARTS, int(count)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="egm-tiny", help="egm-tiny or a model folder")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="of SynthRef")
    parser.add_argument("--scenes", type=int, help="only the first scenes of each split, about four samples each")
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--tolerance", type=float, default=0.1, help="points of Acc@0.5 that may lie between them")
    parser.add_argument("--servers", type=int, default=2, help="how many to run, each on a core")
    parser.add_argument("--stream", action="store_true", help="ask for tokens as they come: a fifth slower")
    parser.add_argument("--folder", type=Path, help="keep the journals here, and go on with those that are there")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after these, and report what is done")
    parser.add_argument("--shard", type=shard, default="1/1", metavar="I/N", help="only this share of the samples")
    parser.add_argument("--only", choices=("here", "served"), help="leave the other out, for another machine to do")
    parser.add_argument("--report-only", type=Path, nargs="+", metavar="DIR", help="ask nothing; read these --folders")
    options = parser.parse_args()
    settings, whole = GenerationSettings(max_new_tokens=options.max_tokens), True
    with tempfile.TemporaryDirectory() as temporary:
        folders = options.report_only or [options.folder or Path(temporary)]
        if not options.report_only:
            job = Job(
                model=options.model,
                weights=digest(options.model),
                folder=folders[0],
                settings=settings,
                splits=options.splits,
                scenes=options.scenes,
                only=options.only,
                stream=options.stream,
            )
            whole = answer_all(job, options.shard, options.servers, options.minutes)
        try:
            agree = report(collect(folders), options.tolerance)
        except EgmError as error:
            sys.exit(f"error: {error}")
    sys.exit(0 if whole and (agree or options.only) else 1)


if __name__ == "__main__":
    main()
