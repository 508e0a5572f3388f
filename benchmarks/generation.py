"""Samples and tokens a second through the backend in process, by batch size: the decoder, and `generate` beside it.

    uv run python benchmarks/generation.py --device cuda
    uv run python benchmarks/generation.py --device cpu --batches 1 64 --samples 64 --old 64

The questions are SynthRef's, answered greedily or, with `--sample`, at temperature 0.6 and top-p 0.95. `new` decodes by
`egm.models.decode`, `old` goes through the library's `generate`, on as many samples as `--old` says, since it takes
long; batches take turns. Each way answers the first batch once before it is measured, which takes `first` seconds and
records the CUDA graphs. `p50` is the median of the seconds from the call to an answer's last token.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from egm.backends import GenerationSettings, Request
from egm.backends.transformers import TransformersBackend
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.types import Completion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="egm-tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 256, 512])
    parser.add_argument("--samples", type=int, default=1024, help="most samples; at batch 1 at most 16")
    parser.add_argument("--old", type=int, default=256, help="most samples through generate; 0 leaves it out")
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--sample", action="store_true")
    options = parser.parse_args()

    settings = GenerationSettings(max_new_tokens=options.max_tokens)
    if options.sample:
        settings = replace(settings, temperature=0.6, top_p=0.95)
    backend = TransformersBackend.load(options.model, device=options.device, dtype=options.dtype)
    requests = ask(options.samples)
    where = torch.cuda.get_device_name() if backend.module.device.type == "cuda" else "the CPU"
    drawn = "sampled" if options.sample else "greedy"
    print(f"{options.model} in {backend.module.dtype} on {where}, {drawn}, at most {options.max_tokens} tokens\n")
    print("| batch | way | samples | samples/s | tokens/s | p50 s | first s | equal texts |")
    print("|---|---|---|---|---|---|---|---|")
    for size in options.batches:
        most = min(options.samples, 16) if size == 1 else options.samples
        chosen = requests[: max(size, most // size * size)]
        new, old = Way(backend, settings), Way(backend, through_generate(settings))
        for start in range(0, len(chosen), size):
            new.answer(chosen[start : start + size])
            if start + size <= max(size, options.old) and options.old:
                old.answer(chosen[start : start + size])
        equal = sum(a.text == b.text for a, b in zip(new.replies, old.replies, strict=False))
        new.show(size, "new", "")
        if options.old:
            old.show(size, "old", f"{equal} of {len(old.replies)}")


def through_generate(settings: GenerationSettings) -> GenerationSettings:
    """Ask for a thinking budget, which the decoder does not keep; where requests have no `cut`, it changes nothing."""
    return replace(settings, thinking_budget=settings.max_new_tokens - 1)


def ask(count: int) -> list[Request]:
    """Make questions about as many pictures as it takes."""
    codec, data = get_codec("qwen3_vl"), SynthRef("train")
    samples: list[Any] = []
    scene = 0
    while len(samples) < count:
        samples += data.samples(scene)
        scene += 1
    return [
        Request(codec.messages(sample.phrase), [sample.image], seed_index=number)
        for number, sample in enumerate(samples[:count])
    ]


class Way:
    """One way to answer, with what came of it."""

    def __init__(self, backend: TransformersBackend, settings: GenerationSettings) -> None:
        self._backend, self._settings = backend, settings
        self.replies: list[Completion] = []
        self._seconds = self._first = 0.0

    def answer(self, requests: Sequence[Request]) -> None:
        """Answer a batch; the first one twice, of which the second time counts."""
        if not self.replies:
            self._first = self._timed(requests)[1]
        replies, seconds = self._timed(requests)
        self.replies += replies
        self._seconds += seconds

    def _timed(self, requests: Sequence[Request]) -> tuple[list[Completion], float]:
        start = time.perf_counter()
        replies = self._backend.generate(requests, self._settings)
        return replies, time.perf_counter() - start

    def show(self, size: int, name: str, equal: str) -> None:
        """Print a row of the table."""
        tokens = sum(reply.completion_tokens for reply in self.replies)
        median = statistics.median(reply.seconds for reply in self.replies)
        print(
            f"| {size} | {name} | {len(self.replies)} | {len(self.replies) / self._seconds:.2f} | "
            f"{tokens / self._seconds:.0f} | {median:.3f} | {self._first:.2f} | {equal} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
