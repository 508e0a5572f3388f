"""egm-tiny behind the project's server explains what it finds; a run that is killed goes on as if it had not been."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from egm.backends import GenerationSettings
from egm.backends.checkpoint import find_checkpoint
from egm.backends.numpy.backend import NumpyBackend
from egm.rationales.ledger import Call, Decision, read_ledger

from ..server.serving import served

RUN = "from egm.cli import main; main()"
SELF = ("--style", "self", "--temperature", "0", "--tries", "1", "--concurrency", "1")


class Counting(NumpyBackend):
    """egm-tiny, which counts what it is asked."""

    asked = 0

    def generate(self, requests: Any, settings: GenerationSettings) -> Any:
        self.asked += len(requests)
        return super().generate(requests, settings)


def command(place: str, folder: Path, samples: int) -> list[str]:
    models = ("--teacher", "egm-tiny", "--server", f"http://{place}", "--blind", "egm-tiny", "--blind-prefill")
    wanted = ("synthref/train", "--limit", str(samples), "--out", str(folder), "--format", "ms-swift")
    return [sys.executable, "-c", RUN, "rationales", *wanted, *models, *SELF]


def lines_of(folder: Path) -> list[Any]:
    """What the journal holds, but for the seconds that calls took."""
    return [line.model_copy(update={"seconds": 0.0}) if isinstance(line, Call) else line for line in ledger(folder)]


def ledger(folder: Path) -> list[Any]:
    return read_ledger(folder)[1]


def test_killed_at_a_random_moment_it_brings_the_same_data_and_asks_nothing_twice(tmp_path: Path) -> None:
    kill_and_compare(tmp_path, samples=2, times=1)  # tests/integration kills more often


def kill_and_compare(tmp_path: Path, *, samples: int, times: int) -> None:
    """Make the same run twice, and kill the second so often, each time as its journal has reached a random length."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    backend = Counting(find_checkpoint("egm-tiny"))
    with served(backend) as (place, _):
        subprocess.run(command(place, whole, samples), check=True, capture_output=True)
        once = backend.asked
        assert once == sum(isinstance(line, Call) for line in ledger(whole))
        file, size = part / "journal.jsonl", (whole / "journal.jsonl").stat().st_size
        draw, kills = random.Random(11), 0
        for share in sorted(draw.random() for _ in range(times)):
            with subprocess.Popen(command(place, part, samples), stderr=subprocess.DEVNULL) as process:
                end = time.monotonic() + 120
                while not (file.exists() and file.stat().st_size >= share * size):
                    assert time.monotonic() < end, "the journal does not grow"
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(0.002)
                        break
                process.send_signal(signal.SIGKILL)
            kills += process.returncode == -signal.SIGKILL
        subprocess.run(command(place, part, samples), check=True, capture_output=True)
    assert kills == times
    assert lines_of(part) == lines_of(whole)
    assert backend.asked - once <= once + kills  # of each call that a kill cut off nobody has the answer
    for name in ("train.jsonl", "ms_swift.jsonl"):
        assert (part / name).read_bytes() == (whole / name).read_bytes()
    check_reasoning(whole)


def check_reasoning(folder: Path) -> None:
    """See that the server was asked its own question, and that its reasoning was taken without the box."""
    calls = [line for line in ledger(folder) if isinstance(line, Call)]
    assert all(call.colour is None and call.counted and min(call.tokens) > 0 for call in calls)
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    answers = {call.id: call.text for call in calls if call.asked == "teacher"}
    assert rows
    for row in rows:
        assert answers[row["id"]].startswith(row["rationale"] + "\n</think>")
        assert "bbox_2d" not in row["rationale"]
    found = [line for line in ledger(folder) if isinstance(line, Decision) and not line.against]
    assert [line.iou is not None and line.iou >= 0.5 for line in found] == [True] * len(rows)
