"""Fuzzing of every codec's `parse`: mutations of what models write, for so many seconds.

The corpus is what the codecs write themselves, and every string in files that are given (JSON, JSON Lines, .gz too).
Of each mutation it is checked that `parse` does not raise, that it takes time linear in the length, and that a box is
four numbers which stand side by side in the answer, behind the reasoning. Prints what broke that, shortest first, and
ends with 1 if anything did.

Run with `uv run python benchmarks/fuzz_parser.py [FILE...] [--seconds 120] [--seed 0]`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from egm.boxes import Box
from egm.codecs import Codec, Scale, codec_names, get_codec
from egm.codecs.parsing.reading import split_reasoning

SIZE = (1000, 1000)  # on it every family's numbers are pixels
NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
SECONDS_A_CHARACTER, SECONDS = 20e-6, 0.25
LONGEST = 40_000
PIECES = (
    *("</think>", "<think>", "<answer>", "</answer>", "<box>", "</box>", "<ref>", "</ref>", "<tool_call>", "```json\n"),
    *("</tool_call>", "<|im_end|>", "<|box_start|>", "```", '"bbox_2d": ', '{"bbox_2d": [', "bbox", "[", "]", "{", "}"),
    *("(", ")", ",", ";", '"', "'", "\\", "\\u", "\n", "\ufeff", "，", "【", "】", "１２", "٣", "null", "none", "[]"),
    *(
        "There is no such thing. ",
        "没有",
        "sorry",
        "1e999",
        "NaN",
        "Infinity",
        "-0",
        "1,000",
        "0x10",
        "9" * 400,
        "\x00",
    ),
    *(
        "\ud800",
        "\u202e",
        '"label": "[1, 2, 3, 4]"',
        "<|im_start|>user\n",
        "assistant\n",
        "[100, 200, 300, 400]",
        "(5,6)",
    ),
)


def own_texts(rng: random.Random) -> Iterator[tuple[str, str]]:
    """What the codecs write, and the phrase."""
    for name in codec_names():
        for phrase in ("the cup", 'the sign that says "[1, 2, 3, 4]"', "左边的杯子", "a < b </think>"):
            x, y = rng.randrange(800), rng.randrange(800)
            box = Box(x, y, x + rng.randrange(10, 200), y + rng.randrange(10, 200))
            for rationale in (None, "Cups at (1,2,3,4) and [5, 6, 7, 8]; the left one."):
                yield get_codec(name).target(phrase, box, size=SIZE, rationale=rationale), phrase


def file_texts(path: Path) -> Iterator[tuple[str, str]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = data.decode("utf-8")
    try:
        values = [json.loads(text)]
    except ValueError:
        values = [json.loads(line) for line in text.splitlines() if line.strip()]
    yield from ((found, "the cup") for value in values for found in strings(value))


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def mutate(text: str, other: str, rng: random.Random) -> str:
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        text = mutate_once(text, other, rng)[:LONGEST]
    return text


def mutate_once(text: str, other: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    end = min(len(text), at + rng.choice((1, 5, 60)))
    head, middle, tail = text[:at], text[at:end], text[end:]
    kinds: tuple[Callable[[], str], ...] = (
        lambda: rng.choice(PIECES) + middle,
        lambda: "",
        lambda: middle * rng.choice((2, 3, 400)),
        lambda: "".join(rng.sample(middle, len(middle))),
        lambda: NUMBER.sub(lambda _: str(rng.randrange(-50, 1200)), middle),
        lambda: chr(rng.randrange(0x3000)) + middle,
    )
    if rng.random() < 0.2:  # cut off, or gone on with as another
        return head + rng.choice(("", other[rng.randrange(len(other) + 1) :]))
    return head + rng.choice(kinds)() + tail


def fault_of(codec: Codec, text: str, phrase: str, finish_reason: str) -> str | None:
    """Parse a text; say what is wrong with that, if anything is."""
    parse = partial(codec.parse, size=SIZE, seen_size=SIZE, finish_reason=finish_reason, phrase=phrase)
    start = time.process_time()
    try:
        grounding = parse(text)
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"
    seconds = time.process_time() - start
    if seconds > SECONDS + SECONDS_A_CHARACTER * len(text):
        again = time.process_time()  # another program may have had the processor
        parse(text)
        if (seconds := time.process_time() - again) > SECONDS + SECONDS_A_CHARACTER * len(text):
            return f"takes {seconds:.2f} s for {len(text)} characters"
    if grounding.box is None or codec.form.bounded or codec.units != Scale():
        return None  # of tokens and other scales the numbers are not the box's own
    answer = split_reasoning(text.removeprefix("\ufeff"), thinking_prefilled=codec.thinking_prefilled)[1] or ""
    # Escapes of JSON are letters, and so are numbers in them; what stands between digits is up to the family.
    numbers = [float(found) for found in NUMBER.findall(answer)]
    box = list(grounding.box)
    near = (all(map(math.isclose, numbers[i : i + 4], box)) for i in range(len(numbers) - 3))
    return None if any(near) else f"a box that nobody wrote: {box}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    corpus = [*own_texts(rng), *(found for path in options.files for found in file_texts(path))]
    codecs = [get_codec(name) for name in codec_names()]
    faults: dict[str, str] = {}
    parsed = 0
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        (text, phrase), (other, _) = rng.choice(corpus), rng.choice(corpus)
        text = mutate(text, other, rng)
        for codec in codecs:
            reason = rng.choice(("stop", "stop", "length", "repeated"))
            fault = fault_of(codec, text, phrase, reason)
            parsed += 1
            if fault is not None:
                kind = f"{codec.name}: {fault[:30]}"
                faults[kind] = min(faults.get(kind, text), text, key=len)
    print(f"{parsed:,} texts parsed, from {len(corpus):,}; faults: {len(faults)}")
    for kind, text in sorted(faults.items(), key=lambda item: len(item[1]))[:20]:
        print(f"{kind}\n    {text[:500]!r}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
