"""Benchmarks of training in their tiny form: of fine-tuning, where stock TRL and EGM reach one loss, and of loading."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.integration  # eleven seconds, and needs no other package
def test_both_reach_the_same_loss(warm_start: dict[str, str]) -> None:
    options = ["--preset", "tiny-s", "--batch", "2", "--steps", "2", "--warmup", "1", "--rank", "4"]
    result = subprocess.run(
        [sys.executable, FOLDER / "sft_8b.py", *options],
        env=os.environ | warm_start,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    rows = [line.split() for line in result.stdout.splitlines()[-4:]]
    assert [row[:2] for row in rows] == [[kind, way] for way in ("lora", "full") for kind in ("stock", "egm")]
    for stock, ours in (rows[:2], rows[2:]):
        assert all(abs(float(stock[i]) - float(ours[i])) < 2e-4 for i in (-3, -1))


def test_loading_prints_a_table_with_what_it_was_measured_on(warm_start: dict[str, str]) -> None:
    options = ["--samples", "8", "--pictures", "8", "--batch", "4", "--workers", "1"]
    options += ["--size", "64", "64", "--size", "64", "85"]
    result = subprocess.run(
        [sys.executable, FOLDER / "loading.py", *options],
        env=os.environ | warm_start,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    machine, what, *table = [line for line in result.stdout.splitlines() if line]
    assert re.match(r"CPU \(.+ cores\); Python 3\..+, torch \d.+, transformers \d", machine)
    assert what.startswith("1 workers, 8 samples a source, batches of 4; 8 JPEGs of 64 x 64 (")
    assert table[:2] == ["| source | samples/s per core | of the first |", "|---|---|---|"]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in table[2:]]
    jpegs = [".jsonl with JPEGs of 64 x 64", ".jsonl with JPEGs of 64 x 85", ".parquet with JPEGs of 64 x 64"]
    assert [row[0] for row in rows] == [*jpegs, "synthref/train"]
    assert all(float(rate.replace(",", "")) > 0 and float(ratio) > 0 for _, rate, ratio in rows)
    assert rows[0][2] == "1.00"
