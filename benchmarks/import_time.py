"""Time what a user waits for: `import egm` in a fresh interpreter, less the interpreter's own start.

    uv run python benchmarks/import_time.py [RUNS]

Prints the median and the range over RUNS (default 20) for a few imports, in milliseconds. The goal for `import egm` is
300 ms on any machine.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

CASES = {
    "import egm": "import egm",
    "egm.Box": "import egm; egm.Box",
    "egm.load_image": "import egm; egm.load_image",
    "egm.get_codec": "import egm; egm.get_codec",
}


def start(code: str) -> float:
    """Seconds from starting an interpreter on `code` to its end."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begin


def main(runs: int) -> None:
    for code in ("pass", *CASES.values()):
        start(code)  # byte code is written, files are in the page cache
    for name, code in CASES.items():
        # Turn about, so that a slow moment of the machine strikes both alike.
        spent = sorted((start(code) - start("pass")) * 1000 for _ in range(runs))
        print(f"{name:<16} median {statistics.median(spent):7.1f} ms   range {spent[0]:.1f} to {spent[-1]:.1f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
