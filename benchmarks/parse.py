"""How fast answers are read: 64 kB of hostile text a codec, and real answers.

Run with `uv run python benchmarks/parse.py [PREDICTIONS.json.gz ...]`. Each hostile text should take less than 50 ms
in every codec.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from pathlib import Path

from egm.codecs import codec_names, get_codec

KB = 1024
LENGTH = 64 * KB
BUDGET_MS = 50.0

HOSTILE = {
    "[": "[",
    "[ closed": "[",
    "digits": "1",
    "[ and digits": "[1",
    "one list of digits": "1, ",
    "backslashes": "\\",
    "escaped quotes": '\\"',
    "quotes": '"',
    "nested braces": '{"a":',
    "nested braces, spaced": "{ ",
    "spaces": " ",
    "[1]": "[1]",
    "[1, 2]": "[1, 2]",
    "parentheses": "(",
    "half pairs": "(1,2) ",
    "boxes": "[1,2,3,4],",
    "keys": '"bbox_2d": ',
    "keys with brackets": '"bbox_2d":[',
    "unfinished labels": 'bbox_2d:[1,2,3,4],"label":"\\',
    "<box>": "<box>",
    "<box></box>": "<box></box>",
    "<ref>": "<ref></ref><box>",
    "<think>": "<think>",
    "</think>": "</think>",
    "<answer>": "<answer>",
    "fences": "```json\n",
    "bare fences": "```",
    "fences of words": "```a```",
    "<box> and half pairs": "<box>(1,2),\n",
    "half pairs after <box>": "(1,2)",
    "end of turn": "</s>",
    "no": "no ",
    "there is": "there is ",
    "fractions": "0.0.",
}


def hostile(name: str, length: int = LENGTH) -> str:
    """Make one hostile text of a length."""
    unit = HOSTILE[name]
    body = (unit * (length // len(unit) + 1))[:length]
    if name == "[ closed":
        return body[: length // 2] + "]" * (length // 2)
    if name == "half pairs after <box>":
        return "<|box_start|>" + body
    return "[" + body if name == "one list of digits" else body


def best_ms(codec_name: str, text: str, repeats: int = 3) -> float:
    """Read a text a few times, and give the best time."""
    codec = get_codec(codec_name)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        # A closed thought first, so that codecs which expect one read the rest.
        codec.parse("</think>" + text, size=(640, 480))
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main() -> int:
    """Print both tables; return 1 if a hostile text takes too long."""
    names = codec_names()
    print("| 64 kB of | " + " | ".join(f"{name}, ms" for name in names) + " |")
    print("|---|" + "---|" * len(names))
    worst = 0.0
    for text in HOSTILE:
        row = [best_ms(name, hostile(text)) for name in names]
        worst = max(worst, *row)
        print(f"| `{text}` | " + " | ".join(f"{value:.1f}" for value in row) + " |")
    print(f"\nworst: {worst:.1f} ms (should be below {BUDGET_MS:.0f})")
    codec = get_codec("qwen2_5_vl")
    for path in map(Path, sys.argv[1:]):
        answers = [row["model_output"] for row in json.loads(gzip.decompress(path.read_bytes()))["results"]]
        start = time.perf_counter()
        for answer in answers:
            codec.parse(answer, size=(640, 480))
        print(f"{path.name}: {len(answers) / (time.perf_counter() - start):,.0f} completions/s")
    return int(worst >= BUDGET_MS)


if __name__ == "__main__":
    sys.exit(main())
