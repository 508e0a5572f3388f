"""What `egm web` costs: weight and first paint of its page, memory of its process, and journals of any length.

    python benchmarks/web_page.py [--samples 57457] [--runs 3] [--chromium PATH]

A headless Chromium (the system's; Playwright drives it) opens the page that a process of `egm web` serves, asks
egm-tiny, and looks through two made journals of so many samples each, all with an empty cache of its own each time. One
process may be measured while others work: what is printed says so by the load.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from egm.boxes import Box, iou
from egm.datasets import EVALUATION, split_size
from egm.environment import cpu_name, package_versions
from egm.journal import Header, Journal, Record

PHRASES = ("man on the left", "woman in red next to the bike", "second cup", "red car behind the tree", "left pizza")
PAINT = """() => Object.fromEntries(performance.getEntriesByType("paint").map((each) => [each.name, each.startTime]))"""


def splits_of(samples: int) -> dict[str, int]:
    """The eight splits of RefCOCO, or as many of their samples as are asked for."""
    splits: dict[str, int] = {}
    for split in EVALUATION:
        if left := samples - sum(splits.values()):
            splits[split] = min(left, split_size(split) or left)
    return splits


def write_run(folder: Path, seed: int, accuracy: float, samples: int) -> None:
    """Write a journal about made boxes: those of the samples are the same for every seed."""
    world, model = random.Random(0), random.Random(seed)
    splits = splits_of(samples)
    header = Header(
        model=f"made-{seed}",
        codec={"name": "qwen3_vl"},
        prompt={"style": "qwen3", "example": "x"},
        settings={"seed": seed},
        datasets={split: {"n": n, "digest": "0" * 16} for split, n in splits.items()},
    )
    with Journal(folder, header) as journal:
        for split, n in splits.items():
            for number in range(n):
                width, height = world.uniform(20, 130), world.uniform(20, 90)
                x, y = world.uniform(0, 500), world.uniform(0, 380)
                truth = (x, y, x + width, y + height)
                if model.random() >= accuracy:
                    x, y = model.uniform(0, 500), model.uniform(0, 380)
                box = (x, y, x + width, y + height)
                record = Record(
                    id=f"{split}/{number}",
                    image=f"COCO_train2014_{number // 3:012d}.jpg",
                    phrase=world.choice(PHRASES),
                    truth=truth,
                    size=(640, 480),
                    split=split,
                    text="It asks for one of them. " * world.randint(3, 12) + "\n</think>\n\n[]",
                    box=box,
                    iou=iou(Box(*box), Box(*truth)),
                    prompt_tokens=400,
                    reasoning_tokens=150,
                    completion_tokens=200,
                    seconds=model.random(),
                )
                journal.append(record)


def megabytes(process: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1000 if found else float("nan")


def measure(open_page: Callable[[], Any], process: int, names: list[str], samples: int) -> dict[str, float]:
    """Go through the page once."""
    found: dict[str, float] = {}
    page, sizes = open_page()
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    start = time.perf_counter()
    page.goto(page.start)
    page.locator("#egm-picture-1 svg").wait_for()
    found["ready s"] = time.perf_counter() - start
    page.wait_for_load_state("load")
    found["weight MB"], found["requests"] = sum(sizes) / 1e6, len(sizes)
    found |= {f"{name} s": seconds / 1000 for name, seconds in page.evaluate(PAINT).items()}
    found["memory MB"] = megabytes(process)

    def timed(name: str, act: Callable[[], Any] | None, where: str, text: str) -> None:
        """Time an act up to where a part of the page shows what it did not show before, or without one just that."""
        before = "" if act is None else page.locator(where).inner_text()
        begun = time.perf_counter()
        if act is not None:
            act()
        shown = "([where, text, before]) => { const now = document.querySelector(where).innerText.trim();"
        shown += " return now !== before.trim() && new RegExp(text).test(now); }"
        page.wait_for_function(shown, arg=[where, text, before])
        found[name] = time.perf_counter() - begun

    def choose(label: str, option: str) -> None:
        page.get_by_role("combobox", name=label, exact=True).click()
        page.get_by_role("option", name=option, exact=True).click()

    page.get_by_label("Phrases").fill("the cross farthest from the square")
    ask = page.get_by_role("button", name="Ask", exact=True)
    timed("an answer s", ask.click, "#egm-answers-1", "download JSON")
    found["memory after it MB"] = megabytes(process)
    page.get_by_role("tab", name="Journals").click()
    count = f"{samples:,} of {samples:,} "
    timed("journal opened s", lambda: choose("Run", names[0]), "#egm-journal-status", f"{count}answers")
    timed("its tables s", None, "#egm-tables", "Acc@0.5")
    timed("words s", lambda: page.get_by_label("Words in").fill("cup"), "#egm-journal-status", "pass")
    timed("next page s", page.get_by_role("button", name="Next page").click, "#egm-journal-status", "page 2 of")
    timed("no words s", lambda: page.get_by_label("Words in").fill(""), "#egm-journal-status", count)
    second = lambda: choose("Compare with the run", names[1])  # noqa: E731
    timed("second one s", second, "#egm-journal-status", f"{count}questions")
    timed("differences s", None, "#egm-tables", "exact McNemar")
    gained = lambda: choose("Which run is right", "only the second right")  # noqa: E731
    timed("gained alone s", gained, "#egm-journal-status", "pass")
    found["memory after both MB"] = megabytes(process)
    page.context.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=57_457, help="of each journal (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="fresh processes and browsers (%(default)s)")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    rows = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        for number, accuracy in ((1, 0.85), (2, 0.9)):
            write_run(Path(folder) / f"{number}", number, accuracy, options.samples)
        names = [str(Path(folder) / f"{number}") for number in (1, 2)]
        for _ in range(options.runs):
            start = time.perf_counter()
            command = [sys.executable, "-m", "egm.cli", "web", "--port", "0", "--run", folder]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
                assert served.stdout is not None
                url = served.stdout.readline().split()[0]
                started = time.perf_counter() - start
                browser = driver.chromium.launch(executable_path=options.chromium)

                def open_page(browser: Any = browser, url: str = url) -> tuple[Any, list[int]]:
                    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
                    page.set_default_timeout(120_000)
                    page.start = url
                    return page, []

                row = {"started s": started, **measure(open_page, served.pid, names, options.samples)}
                rows.append(row)
                print(json.dumps({name: round(value, 3) for name, value in row.items()}), flush=True)
                chromium = browser.version
                browser.close()
                served.terminate()
    print(f"\nmedian of {len(rows)}, {options.samples:,} samples a journal:")
    for name in rows[0]:
        print(f"  {name:28s} {statistics.median(row[name] for row in rows):9.2f}")
    versions = {**package_versions("gradio", "playwright"), "chromium": chromium}
    load = os.getloadavg()[0]
    print(f"{cpu_name()}; {versions}; load {load:.1f}; {datetime.datetime.now(datetime.UTC):%Y-%m-%d}")


if __name__ == "__main__":
    main()
