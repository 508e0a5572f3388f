"""Accuracy of a model on SynthRef's frozen splits, greedy: the figures of egm-tiny's model card.

uv run python benchmarks/synthref.py --model egm-tiny
uv run python benchmarks/synthref.py --model runs/egm-tiny/model --scenes 100 --json scores.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

import egm
from egm.datasets.synthetic import SPLITS, TRAINING, SynthRef


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="egm-tiny")
    parser.add_argument("--splits", nargs="+", default=[name for name in SPLITS if name not in TRAINING])
    parser.add_argument("--scenes", type=int, help="only the first scenes of each split")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    grounder = egm.Grounder.load(
        options.model,
        batch_size=options.batch_size,
        settings=egm.GenerationSettings(max_new_tokens=options.max_new_tokens),
    )
    results: dict[str, Any] = {}
    for split in options.splits:
        samples = list(SynthRef(split, scenes=options.scenes))
        started = time.perf_counter()
        groundings = grounder.ground_many(samples)
        seconds = time.perf_counter() - started
        scores = [egm.scoring(grounding, sample.box) for grounding, sample in zip(groundings, samples, strict=True)]
        groups: dict[str, list[int]] = defaultdict(list)
        for index, sample in enumerate(samples):
            meta = sample.meta
            groups["all"].append(index)
            groups[f"relations: {meta['complexity']}"].append(index)
            groups[f"kind: {meta['kind']}"].append(index)
            groups["amodal" if sample.amodal else "modal"].append(index)
            for flag in ("new_words", "new_look"):
                if meta[flag]:
                    groups[flag.replace("_", " ")].append(index)
        results[split] = {
            "seconds": round(seconds, 1),
            "samples_per_second": round(len(samples) / seconds, 1),
            "failures": dict(_counts(str(s.failure) for s in scores if s.failure is not None)),
            "mean_tokens": round(float(np.mean([g.tokens for g in groundings])), 1),
            "groups": {name: _summary([scores[i] for i in group]) for name, group in sorted(groups.items())},
        }
        whole = results[split]["groups"]["all"]
        print(f"{split}: {whole}  failures {results[split]['failures']}  {results[split]['samples_per_second']}/s")
        for name, group in results[split]["groups"].items():
            print(f"    {name:28s} n {group['n']:5d}  Acc@0.5 {group['acc']:5.1f}  mean IoU {group['iou']:.3f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def _summary(scores: list[egm.Score]) -> dict[str, float]:
    ious = np.array([s.iou for s in scores])
    missing = sum(s.failure is not None for s in scores)
    return {
        "n": len(scores),
        "acc": round(100 * float(np.mean([s.hit() for s in scores])), 2),
        "acc75": round(100 * float(np.mean(ious >= 0.75)), 2),
        "iou": round(float(ious.mean()), 4),
        "no_box": round(100 * missing / len(scores), 2),
    }


def _counts(names: Any) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for name in names:
        counts[name] += 1
    return counts


if __name__ == "__main__":
    main()
