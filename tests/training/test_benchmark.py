"""The fine-tuning benchmark in its tiny form: stock TRL and EGM see the same data and reach the same loss."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sft_8b.py"


def test_both_reach_the_same_loss() -> None:
    options = ["--preset", "tiny-s", "--batch", "2", "--steps", "2", "--warmup", "1", "--rank", "4"]
    result = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    rows = [line.split() for line in result.stdout.splitlines()[-4:]]
    assert [row[:2] for row in rows] == [[kind, way] for way in ("lora", "full") for kind in ("stock", "egm")]
    for stock, ours in (rows[:2], rows[2:]):
        assert all(abs(float(stock[i]) - float(ours[i])) < 2e-4 for i in (-3, -1))
