"""A dataset of phrases about one room, a server that explains it, and what a run of `egm rationales` left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from egm.rationales.ledger import Call

from ..backends.faulty_server import FaultyServer, Play, say

PLACES = ("corner", "middle", "shelf", "window", "table", "door", "carpet", "lamp", "curtain", "chair")
THINGS = ("cup", "book", "vase", "clock", "plate", "bottle")
GOOD = "Among the things here only the {0} near the {1} has a handle like that, which leads there and nowhere else."


def room(count: int, folder: Path = Path()) -> Path:
    """Make a dataset of so many phrases, no two of which are part of one another."""
    Image.new("RGB", (160, 120), (200, 200, 200)).save(folder / "room.png")
    rows = [
        {"image": "room.png", "sent": phrase(n), "bbox": [20, 30, 60, 80], "width": 160, "height": 120}
        for n in range(count)
    ]
    (folder / "room.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "room.jsonl"


def phrase(number: int) -> str:
    return f"{THINGS[number % len(THINGS)]} at the {PLACES[number // len(THINGS) % len(PLACES)]}"


def good(number: int) -> str:
    """A rationale that nothing speaks against, unlike any other."""
    words = phrase(number).split()
    return GOOD.format(words[0], words[-1])


def good_script(count: int) -> dict[str, list[Play]]:
    return {phrase(number): [say(good(number))] for number in range(count)}


def make(dataset: Path, server: FaultyServer, *more: object) -> tuple[object, ...]:
    command = ("rationales", dataset, "--teacher", "tiny", "--server", server.url, "--out", "run", "--concurrency", 1)
    # These rationales are of one make; and whether RefCOCO is at hand is no matter.
    Path("filters.yaml").write_text("failure: {}\nleak: {}\nlanguage: {}\nlength: {least: 8, most: 90}\n")
    return (*command, "--filters", "filters.yaml", *more)


def rows(name: str = "train.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("run", name).read_text().splitlines()]


def calls(lines: list[Any], *, failed: bool = False) -> list[Call]:
    return [line for line in lines if isinstance(line, Call) and (line.error is not None) == failed]
