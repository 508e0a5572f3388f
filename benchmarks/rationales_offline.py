"""Rows a second that `egm rationales --teacher synthref` makes: drawn, worded, filtered, with pictures, data and card.

uv run python benchmarks/rationales_offline.py
uv run python benchmarks/rationales_offline.py --rows 2000 --corrupt 0.3

The command runs twice in a process of its own, on few rows and on `--rows` more. By the clock: all of the larger run,
its start among it, and the rows that it has more by the seconds that it took longer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from egm.environment import cpu_name

FEW = 1_000  # from which on the command draws in several processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--style", default="official")
    parser.add_argument("--corrupt", type=float, help="share of rationales that a defect is planted in")
    options = parser.parse_args()
    more = [] if options.corrupt is None else ["--corrupt", str(options.corrupt)]
    (few, short), (many, long) = (run(rows, options.style, more) for rows in (FEW, FEW + options.rows))
    print(f"{cpu_name()}, load before {os.getloadavg()[0]:.1f}")
    print(f"{many['total']:,} samples, {many['tries']:,} tries, {many['kept']:,} kept: {long:.1f} s")
    print(f"{many['total'] / long:.0f} rows/s with the start, {options.rows / (long - short):.0f} rows/s without")
    assert few["total"] == FEW


def run(rows: int, style: str, more: list[str]) -> tuple[dict[str, int], float]:
    """What the command says, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        wanted = ["synthref/train", "--limit", str(rows), "--teacher", "synthref", "--style", style, "--out", str(out)]
        command = [sys.executable, "-c", "from egm.cli import main; main()", "rationales", *wanted, *more, "--json"]
        started = time.perf_counter()
        ended = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(ended.stdout), time.perf_counter() - started


if __name__ == "__main__":
    main()
