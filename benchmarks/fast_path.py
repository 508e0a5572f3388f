"""Samples a second of a training step, stock against fast path, on pictures of mixed sizes.

    python benchmarks/fast_path.py                     # tiny-s; batch 256 in bf16 autocast on a GPU, else 16 in float32
    python benchmarks/fast_path.py --profile           # where the time goes, part by part
    python benchmarks/fast_path.py --attention frames  # on a GPU: size by size instead of one call
    python benchmarks/fast_path.py --model 8B --dtype bfloat16 --batch 16 --steps 8   # a published size, random weights

A step is forward, loss and backward. The fast path gets what its loader would give: positions, grids as a list, no
mask; `mended` is the same path on the stock inputs. Ratios are of medians, the ways taking turns in one run.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from egm.models import build_model, disable_fast_path, enable_fast_path, position_ids
from egm.models.fast import vision_attention
from egm.models.tiny.vocabulary import token_id

TEXT = 160  # tokens of a prompt and its target beside the picture's


def sizes(count: int, generator: random.Random) -> list[tuple[int, int]]:
    """Draw patch grids of pictures with sides of 160-384 pixels, at most 336 x 336 in area."""
    sides = range(160, 385, 32)
    known = [(1, h // 16, w // 16) for h in sides for w in sides if h * w <= 336 * 336]
    return generator.choices(known, k=count)


def make_batch(
    config: Any, count: int, device: str, dtype: torch.dtype, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make a batch as the processor does, padded on the right, and the same as the fast path likes it."""
    grids = sizes(count, random.Random(seed))
    tokens = [h * w // 4 for _, h, w in grids]
    length = TEXT + max(tokens)
    ids = torch.full((count, length), token_id("<|endoftext|>"))
    mask = torch.zeros(count, length, dtype=torch.long)
    for row, visual in enumerate(tokens):
        ids[row, : TEXT + visual] = torch.randint(282, 600, (TEXT + visual,))
        ids[row, 5 : 5 + visual] = config.image_token_id
        mask[row, : TEXT + visual] = 1
    patches = sum(h * w for _, h, w in grids)
    pixels = torch.randn(patches, 1536, generator=torch.Generator().manual_seed(seed))
    shared = {
        "input_ids": ids.to(device),
        "labels": ids.masked_fill((mask == 0) | (ids == config.image_token_id), -100).to(device),
        "pixel_values": pixels.to(device, dtype),
    }
    stock = {"attention_mask": mask, "mm_token_type_ids": (ids == config.image_token_id).int()}
    stock = {name: value.to(device) for name, value in stock.items()}
    positions = position_ids(ids, grids, mask, config).to(device)
    stock["image_grid_thw"] = torch.tensor(grids, device=device)
    return shared | stock, shared | {"position_ids": positions, "image_grid_thw": grids}


def step(model: Any, batch: dict[str, Any], device: str, half: bool) -> None:
    with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
        loss = model(**batch).loss
    loss.backward()
    model.zero_grad(set_to_none=True)


def timed(action: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    action()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def profile(action: Callable[[], None], device: str) -> str:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as recorded:
        for _ in range(3):
            action()
    key = "self_cuda_time_total" if device == "cuda" else "self_cpu_time_total"
    return str(recorded.key_averages().table(sort_by=key, row_limit=25, max_name_column_width=60))


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-s")
    parser.add_argument("--batch", type=int, default=256 if device == "cuda" else 16)
    parser.add_argument("--steps", type=int, default=20 if device == "cuda" else 5)
    parser.add_argument("--attention", choices=["auto", "frames"], default="auto")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the weights")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if options.attention == "frames":
        vision_attention._gave_up.append("asked to")
    half = device == "cuda" and options.dtype == "float32"  # autocast, which bfloat16 weights do without
    model = build_model(options.model, seed=0, dtype=options.dtype, device=device).train()
    stock, light = make_batch(model.config, options.batch, device, model.dtype)
    ways: dict[str, Callable[[], None]] = {
        "stock": lambda: step(disable_fast_path(model), stock, device, half),
        "mended": lambda: step(enable_fast_path(model), stock, device, half),
        "fast": lambda: step(enable_fast_path(model), light, device, half),
    }
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    patches = len(stock["pixel_values"])
    computed = "bf16 autocast" if half else options.dtype
    print(f"{options.model}, batch {options.batch}, {patches} patches, {computed}, {where}")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.steps + 2):
        for name, action in ways.items():
            taken = timed(action, device)
            if turn >= 2:
                seconds[name].append(taken)
    for name, taken in seconds.items():
        median = statistics.median(taken)
        ratio = statistics.median(seconds["stock"]) / median
        print(f"{name:8}{options.batch / median:9.1f} samples/s{1000 * median:9.1f} ms a step{ratio:7.2f}x")
    if options.profile:
        for name in ("stock", "fast"):
            print(f"\n{name}\n{profile(ways[name], device)}")


if __name__ == "__main__":
    main()
