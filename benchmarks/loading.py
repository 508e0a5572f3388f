"""Samples a second that one core loads for training: read, decoded, resized, cut into patches, tokenised, batched.

Resized are pictures whose sides are no multiples of the processor's 32 pixels, or that are too large for it; of the two
sizes that are made 640 x 480 needs none of it, and 640 x 427 does.

    uv run python benchmarks/loading.py
    uv run python benchmarks/loading.py --workers 4

Three sources: a .jsonl file with JPEG files beside it, a parquet file with the same JPEGs inside, both made here from a
seed in a temporary folder, and SynthRef, whose scenes are drawn as they are needed. The first is read in both sizes,
the second in the first of them. Rows come in the order of training.
Without workers one process does everything on one thread; with them the rate is divided by their number. It prints
a table in Markdown, with each rate against the first, under two lines that say what it was measured on.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
    os.environ[name] = "false" if name.startswith("TOK") else "1"

WORDS = "The phrase asks for the left one of the two cups on the table, next to the plate, so it is the one at hand. "


def make_files(folder: Path, count: int, size: tuple[int, int]) -> tuple[Path, Path, float]:
    """Write the same samples as .jsonl beside JPEGs, and as parquet with the JPEGs inside; tell kB a JPEG."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rng = np.random.default_rng(0)
    width, height = size
    lines, rows, stored = [], [], 0
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
        path = folder / f"{number:06d}.jpg"
        coarse.resize(size, Image.Resampling.BICUBIC).effect_spread(2).save(path, quality=92)
        stored += path.stat().st_size
        box = [width // 64, height // 24, 5 * width // 16, 11 * height // 24]
        sample = {"sent": f"the cup number {number}", "bbox": box, "height": height, "width": width}
        sample["rationale"] = WORDS * 3
        lines.append(json.dumps({"image": path.name, **sample}) + "\n")
        thousandths = [round(1000 * value / side) for value, side in zip(box, (width, height) * 2, strict=True)]
        question = f"<image>\nLocate {sample['sent']}, output its bbox coordinates using JSON format"
        rows.append(
            {
                "data_source": "grounding",
                "prompt": [{"role": "user", "content": question}],
                "images": [{"bytes": path.read_bytes(), "path": None}],
                "reward_model": {"style": "rule", "ground_truth": thousandths},
                "extra_info": sample,
            }
        )
    (folder / "rows.jsonl").write_text("".join(lines))
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet", row_group_size=100)
    return folder / "rows.jsonl", folder / "rows.parquet", stored / count / 1024


def rate(source: str, options: argparse.Namespace) -> float:
    """Samples a second, after one batch of each process to warm up; of one core."""
    import torch
    from torch.utils.data import DataLoader

    from egm.codecs import get_codec
    from egm.models import build_config, build_processor, get_preset
    from egm.training.data import Order, open_rows
    from egm.training.data.collate import Collator

    torch.set_num_threads(1)
    rows = open_rows(source, scenes=100_000, seed=0)
    processor = build_processor()
    processor.image_processor.size["longest_edge"] = options.max_pixels
    collator = Collator(rows, processor, get_codec("qwen3_vl"), build_config(get_preset("tiny-s")), max_length=4096)
    numbers: Any = [{"row": row} for row in range(len(rows))]
    loader = DataLoader(
        numbers,
        batch_size=max(1, options.batch // rows.samples_per_row),
        sampler=Order(rows, 0),  # type: ignore[arg-type]
        collate_fn=collator,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
    )
    samples, started, warm_up = 0, 0.0, max(1, options.workers)
    while samples < options.samples:
        for batch in loader:
            if warm_up > 0:
                warm_up -= 1
                started = time.perf_counter()
                continue
            samples += len(batch["input_ids"])
            if samples >= options.samples:
                break
    return samples / (time.perf_counter() - started) / max(1, options.workers)


def about(options: argparse.Namespace, kilobytes: list[float]) -> str:
    """What it was measured on, and of what."""
    import platform
    from importlib.metadata import version

    from egm.environment import cpu_name

    names = ("torch", "transformers", "pillow", "numpy", "pyarrow")
    versions = ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)])
    sizes = ", ".join(
        f"{width} x {height} ({kb:.0f} kB each)" for (width, height), kb in zip(options.sizes, kilobytes, strict=True)
    )
    return (
        f"{cpu_name()}; {versions}\n"
        f"{options.workers} workers, {options.samples:,} samples a source, batches of {options.batch}; "
        f"{options.pictures} JPEGs of {sizes}; at most {options.max_pixels:,} pixels go to the model"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000, help="how many samples are timed for each source")
    parser.add_argument("--pictures", type=int, default=400, help="how many JPEGs are made")
    parser.add_argument(
        "--size",
        dest="sizes",
        type=int,
        nargs=2,
        action="append",
        metavar=("WIDTH", "HEIGHT"),
        help="of the JPEGs; may be repeated; 640 x 480, and 640 x 427 which is resized to multiples of 32",
    )
    parser.add_argument("--max-pixels", type=int, default=1024 * 1024, help="the processor's limit; lower it to resize")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    options.sizes = options.sizes or [[640, 480], [640, 427]]
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for width, height in options.sizes:
            within = Path(folder) / f"{width}x{height}"
            within.mkdir()
            made.append(make_files(within, options.pictures, (width, height)))
        print(f"{about(options, [files[2] for files in made])}\n")
        print("| source | samples/s per core | of the first |\n|---|---|---|")
        sources: list[tuple[str, object]] = [
            (f".jsonl with JPEGs of {width} x {height}", files[0])
            for (width, height), files in zip(options.sizes, made, strict=True)
        ]
        width, height = options.sizes[0]
        sources += [(f".parquet with JPEGs of {width} x {height}", made[0][1]), ("synthref/train", "synthref/train")]
        first = None
        for name, source in sources:
            found = rate(str(source), options)
            first = first or found
            print(f"| {name} | {found:,.0f} | {found / first:.2f} |", flush=True)


if __name__ == "__main__":
    main()
