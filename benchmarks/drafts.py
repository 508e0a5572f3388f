"""What do drafts save? egm-tiny's greedy answers token by token and with drafts, one question at a time.

    python benchmarks/drafts.py --scenes 10                  # in NumPy, on the CPU
    python benchmarks/drafts.py --scenes 10 --device cuda    # in torch, float32 by the library's layers
    python benchmarks/drafts.py --scenes 10 --device cuda --dtype bfloat16    # by kernels, where they are taken unasked

Both ways take turns, scene by scene, so that a busy machine slows both. Times are the replies' own, whose clock stands
still while CUDA graphs are recorded, behind a scene that is not measured. Prints tokens a second, their ratio, tokens a
pass, and how many of the drafted tokens were right. Every text that differs is printed with the log-probabilities of
the two tokens where it parts, as the model reads them in one pass over the text.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import date
from typing import Any

from egm.backends.base import Request
from egm.backends.checkpoint import find_checkpoint
from egm.backends.numpy.backend import NumpyBackend
from egm.backends.transformers import TransformersBackend
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.environment import package_versions
from egm.evaluate.suites import SUITES
from egm.grounder import Grounder
from egm.images import load_image
from egm.types import Sample


def counts_of(backend: Any) -> Any:
    return backend.draft_counts if isinstance(backend, NumpyBackend) else backend._decoder.draft_counts


def parting(backend: Any, codec: Any, sample: Sample, texts: Sequence[str]) -> str:
    """Tell where two answers part, and how likely either token is there."""
    ids = [backend.tokenize(text) for text in texts]
    at = next((at for at, pair in enumerate(zip(*ids, strict=False)) if pair[0] != pair[1]), min(map(len, ids)))
    request = Request(codec.messages(sample.phrase, amodal=sample.amodal), [load_image(sample.image)])
    told = []
    for text in texts:
        scores = backend.token_scores(request, text)
        start = scores[at - 1].end if at else 0
        ends = at == len(scores)  # the other goes on
        told.append("its end" if ends else f"{text[start : scores[at].end]!r} {scores[at].logprob:.4f}")
    return f"{sample.id}, token {at}: without drafts {told[0]}, with drafts {told[1]}"


def main() -> None:
    """Print a row a split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="egm-tiny")
    parser.add_argument("--scenes", type=int, default=10, help="of each split")
    parser.add_argument("--phrases", type=int, default=4, help="questions a scene, at most")
    parser.add_argument("--device", help="in torch, there; in NumPy if it is not given")
    parser.add_argument("--dtype", default="float32", help="in torch, such as bfloat16")
    options = parser.parse_args()
    checkpoint, codec = find_checkpoint(options.model), get_codec("qwen3_vl")
    if options.device is None:
        backends: dict[bool, Any] = {drafts: NumpyBackend(checkpoint, drafts=drafts) for drafts in (False, True)}
    else:
        loaded = TransformersBackend.load(checkpoint, device=options.device, dtype=options.dtype)
        shared: dict[str, Any] = {"name": loaded.model, "fast_prompts": True}
        backends = {
            drafts: TransformersBackend(loaded.module, loaded.processor, drafts=drafts, **shared)
            for drafts in (False, True)
        }
    ways = {drafts: Grounder(backend, codec, batch_size=1) for drafts, backend in backends.items()}
    for way in ways.values():
        way.ground_many(SynthRef("train").samples(0))
    about, how = backends[True].describe(), "NumPy"
    if options.device is not None:
        fused = [backend._decoder._fused is not None for backend in backends.values()]
        how = f"{options.dtype}, steps by " + ("kernels" if all(fused) else "the library's layers")
    print(f"{about.hardware}, {how}, {package_versions(*about.packages)}, {date.today()}")
    print("| split | questions | tokens | tokens/s | with drafts | ratio | tokens a pass | right | texts that differ |")
    print("|---|---|---|---|---|---|---|---|---|")
    parted: list[str] = []
    for split in SUITES["synthref"]:
        seconds, tokens, asked, different = {False: 0.0, True: 0.0}, 0, 0, 0
        before = counts_of(backends[True])
        passes, drafted, accepted = before.passes, before.drafted, before.accepted
        source = SynthRef(split.removeprefix("synthref/"), scenes=options.scenes, phrases=options.phrases)
        for scene in range(options.scenes):
            samples, answers = source.samples(scene), {}
            for drafts in (False, True) if scene % 2 else (True, False):
                answers[drafts] = ways[drafts].ground_many(samples)
                seconds[drafts] += sum(answer.seconds for answer in answers[drafts])
            asked += len(samples)
            tokens += sum(answer.tokens for answer in answers[True])
            for sample, *pair in zip(samples, answers[False], answers[True], strict=True):
                if pair[0].text != pair[1].text:
                    different += 1
                    parted.append(parting(backends[False], codec, sample, [answer.text for answer in pair]))
        now = counts_of(backends[True])
        per_pass = tokens / (now.passes - passes + asked)
        right = (now.accepted - accepted) / max(1, now.drafted - drafted)
        speeds = [tokens / seconds[drafts] for drafts in (False, True)]
        print(
            f"| {split} | {asked} | {tokens} | {speeds[0]:.0f} | {speeds[1]:.0f} | {speeds[1] / speeds[0]:.2f} | "
            f"{per_pass:.2f} | {right:.0%} | {different} |",
            flush=True,
        )
    if parted:
        print("", *parted, sep="\n")


if __name__ == "__main__":
    main()
