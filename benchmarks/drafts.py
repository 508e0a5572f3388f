"""What do drafts save? egm-tiny's greedy answers token by token and with drafts, one question at a time.

    python benchmarks/drafts.py --scenes 10                  # in NumPy, on the CPU
    python benchmarks/drafts.py --scenes 10 --device cuda    # in torch

Both ways take turns, scene by scene, so that a busy machine slows both. Every text that differs is printed with the
log-probabilities of the two tokens where it parts. Prints tokens a second, their ratio, tokens a pass, and how many of
the drafted tokens were right.
"""

from __future__ import annotations

import argparse
import time
from datetime import date
from typing import Any

from egm.backends.checkpoint import find_checkpoint
from egm.backends.numpy.backend import NumpyBackend
from egm.backends.transformers import TransformersBackend
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.environment import package_versions
from egm.evaluate.suites import SUITES
from egm.grounder import Grounder


def counts_of(backend: Any) -> Any:
    return backend.draft_counts if isinstance(backend, NumpyBackend) else backend._decoder.draft_counts


def main() -> None:
    """Print a row a split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="egm-tiny")
    parser.add_argument("--scenes", type=int, default=10, help="of each split")
    parser.add_argument("--phrases", type=int, default=4, help="questions a scene, at most")
    parser.add_argument("--device", help="in torch, there; in NumPy if it is not given")
    parser.add_argument("--dtype", default="float32", help="in torch")
    options = parser.parse_args()
    checkpoint, codec = find_checkpoint(options.model), get_codec("qwen3_vl")
    if options.device is None:
        backends: dict[bool, Any] = {drafts: NumpyBackend(checkpoint, drafts=drafts) for drafts in (False, True)}
    else:
        plain = TransformersBackend.load(checkpoint, device=options.device, dtype=options.dtype)
        backends = {False: plain, True: TransformersBackend(plain.module, plain.processor, drafts=True)}
    ways = {drafts: Grounder(backend, codec, batch_size=1) for drafts, backend in backends.items()}
    about = backends[True].describe()
    print(f"{about.hardware}, {package_versions(*about.packages)}, {date.today()}")
    print("| split | questions | tokens | tokens/s | with drafts | ratio | tokens a pass | right | texts that differ |")
    print("|---|---|---|---|---|---|---|---|---|")
    for split in SUITES["synthref"]:
        seconds, tokens, asked, different = {False: 0.0, True: 0.0}, 0, 0, 0
        before = counts_of(backends[True])
        passes, drafted, accepted = before.passes, before.drafted, before.accepted
        source = SynthRef(split.removeprefix("synthref/"), scenes=options.scenes, phrases=options.phrases)
        for scene in range(options.scenes):
            samples, texts = source.samples(scene), {}
            for drafts in (False, True) if scene % 2 else (True, False):
                begin = time.perf_counter()
                texts[drafts] = [answer.text for answer in ways[drafts].ground_many(samples)]
                seconds[drafts] += time.perf_counter() - begin
            asked += len(samples)
            tokens += sum(len(ways[True].backend.tokenize(text)) + 1 for text in texts[True])
            different += sum(a != b for a, b in zip(texts[False], texts[True], strict=True))
        now = counts_of(backends[True])
        per_pass = tokens / (now.passes - passes + asked)
        right = (now.accepted - accepted) / max(1, now.drafted - drafted)
        speeds = [tokens / seconds[drafts] for drafts in (False, True)]
        print(
            f"| {split} | {asked} | {tokens} | {speeds[0]:.0f} | {speeds[1]:.0f} | {speeds[1] / speeds[0]:.2f} | "
            f"{per_pass:.2f} | {right:.0%} | {different} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
