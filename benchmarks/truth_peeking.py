"""How many points a harness adds that looks at the truth before it chooses how an answer is read.

    uv run python benchmarks/truth_peeking.py LOGS refcoco_val.json

LOGS holds predictions as VLM-R1's evaluation writes them (`rec_results_*.json.gz`); refcoco_val.json is MiniGPT-4's.
Real answers of Qwen2.5-VL-3B to RefCOCO (500 each: before training, and after two kinds of it), whose boxes are pixels
of the original picture. Each log is scored as it is declared, under a wrong convention (0-1000), by the better of both
readings of each answer, and by the best box of both, as harnesses do. Then the wrong convention is taken for the
declared one, to show what such a harness makes of a mistake.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from egm.boxes import Box, iou
from egm.codecs import get_codec
from egm.types import HIT_IOU, Grounding

READINGS: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "declared": lambda right, _: right[0],
    "wrong": lambda _, wrong: wrong[0],
    "better reading": lambda right, wrong: max(right[0], wrong[0]),
    "best box": lambda right, wrong: max(*right, *wrong),
}


def main() -> None:
    """Print Acc@0.5 in percent and mean IoU of each reading."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, help="folder of the predictions")
    parser.add_argument("rows", type=Path, help="refcoco_val.json, for sizes of pictures")
    options = parser.parse_args()
    logs, sizes = options.logs, _sizes(options.rows)
    print(f"{'log':10} {'rows':>5}" + "".join(f"{name:>24}" for name in READINGS))
    for path in sorted(logs.glob("rec_results_*.json.gz")):
        rows = json.loads(gzip.decompress(path.read_bytes()))["results"]
        pairs = [_ious(row, sizes) for row in rows]
        cells = ""
        for choose in READINGS.values():
            values = [choose(*pair) for pair in pairs]
            hits = 100 * sum(value >= HIT_IOU for value in values) / len(values)
            cells += f"{f'{hits:.1f} %, IoU {sum(values) / len(values):.4f}':>24}"
        print(f"{path.name.removesuffix('.json.gz').rpartition('instruct_')[2]:10} {len(rows):5}{cells}")


def _ious(row: dict[str, Any], sizes: Sequence[Any]) -> tuple[list[float], list[float]]:
    truth = Box(*row["ground_truth"])
    size = _size_of(row["ground_truth"], sizes)
    right = get_codec("qwen2_5_vl").parse(row["model_output"], size=size, seen_size=size)
    wrong = get_codec("qwen3_vl_instruct").parse(row["model_output"], size=size)
    return _each(right, truth), _each(wrong, truth)


def _each(grounding: Grounding, truth: Box) -> list[float]:
    return [iou(item.box, truth) for item in grounding.boxes] or [0.0]


def _sizes(annotations: Path) -> list[tuple[Sequence[float], tuple[int, int]]]:
    """The true box in corners and the size of its picture, as the logs say no sizes."""
    rows = json.loads(annotations.read_text(encoding="utf-8"))
    boxes = [row["bbox"] for row in rows]
    corners = [(x, y, x + width, y + height) for x, y, width, height in boxes]
    return [(box, (row["width"], row["height"])) for box, row in zip(corners, rows, strict=True)]


def _size_of(truth: Sequence[float], sizes: Sequence[tuple[Sequence[float], tuple[int, int]]]) -> tuple[int, int]:
    """Find the picture of a true box, which files round."""
    return min(sizes, key=lambda one: max(abs(a - b) for a, b in zip(one[0], truth, strict=True)))[1]


if __name__ == "__main__":
    main()
