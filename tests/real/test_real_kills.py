"""Real expressions through the command line, killed again and again: the numbers are an unbroken run's.

The first expressions of two splits stand for all of eight: of short phrases and of longer ones.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from egm.datasets import open_dataset
from egm.types import Sample

KILLS = 5
SPLITS = ("refcoco/testA", "refcocog/val")
LIMIT = 1_500  # of each
EXPRESSIONS = LIMIT * len(SPLITS)
EVAL = [sys.executable, "-c", "from egm.cli import main; main()", "eval", *SPLITS, "--limit", str(LIMIT)]


@pytest.fixture(scope="module")
def samples(real_data: Callable[[str], Path]) -> list[Sample]:
    folder = real_data("refcoco")
    return [sample for name in SPLITS for sample in islice(open_dataset(name, data=folder).annotations(), LIMIT)]


@pytest.fixture(scope="module")
def images(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures under the real names and of the real sizes; one file a size, under all of its names."""
    folder = tmp_path_factory.mktemp("train2014")
    made: dict[tuple[int, int], Path] = {}
    for name, size in {(str(sample.image), sample.size) for sample in samples}:
        assert size is not None
        if size not in made:
            made[size] = folder / name
            Image.new("RGB", size, "grey").save(folder / name)
        else:
            (folder / name).hardlink_to(made[size])
    return folder


@pytest.fixture(scope="module")
def script(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An answer to each sample: mostly about where the truth is, now and then none, or a thought that never ends."""
    draw, lines = random.Random(0), []
    for sample in samples:
        assert sample.box is not None
        assert sample.size is not None
        corners = [min(1000, max(0, value + draw.randint(-40, 40))) for value in sample.box.to_1000(sample.size)]
        answer = f'[{{"bbox_2d": {corners}, "label": "it"}}]'
        lines.append(
            draw.choices(
                [rf"One of several.\n</think>\n{answer}", rf"It is {answer}", r"</think>\nThere is none."], [90, 4, 6]
            )[0]
        )
    file = tmp_path_factory.mktemp("script") / "answers.txt"
    file.write_text("\n".join(lines))
    return file


def test_killed_at_random_moments_the_metrics_are_byte_for_byte_those_of_an_unbroken_run(
    real_data: Callable[[str], Path], images: Path, script: Path, samples: list[Sample], tmp_path: Path
) -> None:
    folders = ["--data-root", str(real_data("refcoco")), "--images", str(images)]
    options = [*folders, "--script", str(script), "--json", "--out"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    whole, part = tmp_path / "whole", tmp_path / "part"
    unbroken = subprocess.Popen([*EVAL, *options, str(whole)], **quiet)  # type: ignore[call-overload]
    journal, draw = part / "journal.jsonl", random.Random(3)
    try:
        for _ in range(KILLS):
            # Each time it comes on by a random number of bytes: by one line at least, by a sixth of the whole at most.
            before = journal.stat().st_size if journal.exists() else 0
            child = subprocess.Popen([*EVAL, *options, str(part)], **quiet)  # type: ignore[call-overload]
            wait_for_growth(child, journal, before + draw.choice([0, draw.randrange(480_000)]))
            child.send_signal(signal.SIGKILL)
            out, err = child.communicate()
            assert (child.returncode, out) == (-signal.SIGKILL, b""), "it ended before it was killed"
            assert not beside_progress(err)
            assert journal.stat().st_size > before
            assert not (part / "summary.json").exists()
        ended = subprocess.run([*EVAL, *options, str(part)], check=False, **quiet)  # type: ignore[call-overload]
    finally:
        out, err = unbroken.communicate()
    assert (unbroken.returncode, ended.returncode) == (0, 0)
    assert not beside_progress(err) + beside_progress(ended.stderr)
    assert (part / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()
    numbers, resumed = json.loads(out), json.loads(ended.stdout)
    assert {**numbers, "folder": ""} == {**resumed, "folder": ""}
    assert numbers["all"]["n"] == len(samples) == EXPRESSIONS
    assert 0.5 < numbers["all"]["accuracy"] < 0.95
    assert numbers["all"]["failures"].keys() >= {"no_box", "refused"}
    lines = [(run / "journal.jsonl").read_bytes().splitlines() for run in (whole, part)]
    assert lines[0][1:] == lines[1][1:]  # nothing twice, nothing lost


def beside_progress(err: bytes) -> list[str]:
    """What stands on standard error beside how far the run is."""
    progress = re.compile(rf"[\d,]+ of {EXPRESSIONS:,}(,| answers were there already).*")
    lines = [line for line in err.decode().splitlines() if not line.startswith("next: ")]
    return [line for line in lines if not progress.fullmatch(line)]


def wait_for_growth(child: subprocess.Popen[bytes], journal: Path, size: int) -> None:
    """Wait until the journal is larger than so many bytes, or the child has ended."""
    end = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size > size):
        assert time.monotonic() < end, "the journal does not grow"
        with suppress(subprocess.TimeoutExpired):
            child.wait(0.003)
            return
