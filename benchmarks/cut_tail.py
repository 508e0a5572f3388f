"""What ending answers behind their box saves, and whether a box changes: the same questions with and without the tail.

uv run python benchmarks/cut_tail.py --scenes 100
uv run python benchmarks/cut_tail.py --server http://127.0.0.1:30000 --scenes 100

Asks each question of SynthRef twice in a row, whole and cut, one request at a time and every other time in the other
order, so that the load of the machine and the caches of a server are the same to both. Prints every box that differs,
and mean tokens and seconds of both. Exit code 1 if a box differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import chain
from statistics import fmean

from egm.codecs import DEFAULT_CODEC
from egm.datasets.synthetic import SPLITS, SynthRef
from egm.grounder import Grounder
from egm.types import Grounding, Sample


def ask(subject: Grounder, sample: Sample) -> Grounding:
    """Ground one sample."""
    return subject.ground(sample.image, sample.phrase, amodal=sample.amodal)


def compare(whole: Grounder, cut: Grounder, samples: Sequence[Sample]) -> list[tuple[Grounding, Grounding]]:
    """Ground each sample both ways; say which boxes differ."""
    pairs = []
    for number, sample in enumerate(samples):
        subjects = (whole, cut) if number % 2 else (cut, whole)
        answers = {subject is cut: ask(subject, sample) for subject in subjects}
        one, other = answers[False], answers[True]
        if (one.box, one.failure) != (other.box, other.failure):
            print(f"{sample.id}: {one.box or one.failure} whole, {other.box or other.failure} cut")
        pairs.append((one, other))
    return pairs


def report(pairs: Sequence[tuple[Grounding, Grounding]]) -> int:
    """Print the figures; return how many boxes differ."""
    other = sum((whole.box, whole.failure) != (cut.box, cut.failure) for whole, cut in pairs)
    ended = sum(cut.tail_cut for _, cut in pairs)
    print(f"{len(pairs)} questions, {other} other boxes, {ended} answers ended behind their box")
    for name, values in (
        ("tokens", [(pair[0].tokens or 0, pair[1].tokens or 0) for pair in pairs]),
        ("seconds", [(pair[0].seconds, pair[1].seconds) for pair in pairs]),
    ):
        whole, cut = (fmean(float(value[side]) for value in values) for side in (0, 1))
        print(f"{name}: {whole:.3f} whole, {cut:.3f} cut, {100 * (1 - cut / whole):.1f} % less")
    return other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="URL of an OpenAI-compatible server; else the model runs in this process")
    parser.add_argument("--model", help="egm-tiny, a model folder, or the name that the server has for it")
    parser.add_argument("--codec", help="how a server's model is asked and read")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--split", default="val", choices=[name for name, spec in SPLITS.items() if spec.scenes])
    parser.add_argument("--scenes", type=int, default=100)
    options = parser.parse_args()

    data = SynthRef(options.split, scenes=options.scenes)
    samples = list(chain.from_iterable(data.samples(number) for number in range(options.scenes)))
    if options.server:
        codec = options.codec or DEFAULT_CODEC
        whole = Grounder.connect(options.server, options.model, codec=codec, concurrency=1)
    else:
        whole = Grounder.load(options.model or "egm-tiny", codec=options.codec, device=options.device)
    with whole:
        cut = Grounder(whole.backend, whole.codec, settings=whole.settings, cut_tail=True)
        for subject in (whole, cut):
            ask(subject, samples[0])  # so that what happens once is not timed
        about = whole.backend.describe()
        print(f"{whole.backend.model}, {about.name} {about.release or ''} on {about.hardware or 'a server'}")
        sys.exit(1 if report(compare(whole, cut, samples)) else 0)


if __name__ == "__main__":
    main()
