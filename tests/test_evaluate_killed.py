"""An evaluation of questions of its own, killed at random moments; `tests/real` does it with the real ones."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from egm.journal import read_journal

RUN = """
import sys
from PIL import Image
from egm.backends import Backend
from egm.boxes import Box
from egm.codecs import get_codec
from egm.evaluate import evaluate
from egm.grounder import Grounder
from egm.types import Completion, Sample

pictures = [Image.new("RGB", (32 + i % 7, 16)) for i in range(300)]
samples = [Sample(f"s{i}", pictures[i % 300], f"thing {i};", Box(0, 0, 8 + i % 9, 9)) for i in range(1500)]

class Indexed(Backend):
    model = "drawn"
    def generate(self, requests, settings):
        return [
            Completion(f'</think> [{{"bbox_2d": [0, 0, {1 + r % 1000}, 500]}}]', completion_tokens=r % 99)
            for r in (request.seed_index for request in requests)
        ]

evaluate(samples, Grounder(Indexed(), get_codec("qwen3_vl")), sys.argv[1], progress=False)
"""


def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    subprocess.run([sys.executable, "-c", RUN, str(whole)], check=True)
    file, size = part / "journal.jsonl", (whole / "journal.jsonl").stat().st_size
    draw, kills = random.Random(7), 0
    for share in sorted(draw.random() for _ in range(4)):
        with subprocess.Popen([sys.executable, "-c", RUN, str(part)]) as process:
            end = time.monotonic() + 60
            while not (file.exists() and file.stat().st_size >= share * size):
                assert time.monotonic() < end, "the journal does not grow"
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.002)
                    break
            process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
    subprocess.run([sys.executable, "-c", RUN, str(part)], check=True)
    assert kills >= 2
    assert read_journal(part)[1] == read_journal(whole)[1]
    assert file.read_bytes().splitlines()[1:] == (whole / "journal.jsonl").read_bytes().splitlines()[1:]
    assert (part / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()
