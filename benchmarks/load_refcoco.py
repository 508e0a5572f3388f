"""Load and validate all eight evaluation splits of RefCOCO, RefCOCO+ and RefCOCOg; print the cost.

    uv run python benchmarks/load_refcoco.py --data ../shared/data/refcoco

The folder holds any of the formats that EGM reads. Seconds count from before EGM is imported, megabytes are the peak of
the whole process. The goal is 2 s and 400 MB.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path


def main(data: Path) -> None:
    start = time.perf_counter()
    from egm.datasets import EVALUATION, open_dataset

    splits = [open_dataset(name, data=data) for name in EVALUATION]
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    for split in splits:
        print(f"{split.name:<16}{len(split):>7,}")
    print(f"{sum(map(len, splits)):,} expressions in {seconds:.2f} s, peak {peak:.0f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder with the annotations of the eight splits")
    main(parser.parse_args().data)
