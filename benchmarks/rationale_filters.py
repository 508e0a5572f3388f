"""Recall and precision of the filters of rationales on planted defects, and how many rows a second they take.

uv run python benchmarks/rationale_filters.py
uv run python benchmarks/rationale_filters.py --wordings development --rows 1000 --styles official

Defects are planted in what the offline teacher says of SynthRef's training scenes, in wordings that no filter was
developed on. Half of the rows stay clean; into half of these goes a sentence that looks like a defect and is none.
Recall: of the rows with a defect, those that its filter drops. Precision: of the rows that a filter drops, those that
are not clean. The first row of a canned text is no duplicate yet, and not counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from egm.datasets.synthetic import SynthRef
from egm.datasets.synthetic.rng import Rng
from egm.rationales.candidate import Candidate
from egm.rationales.corrupt import WORDINGS, Corruption, Planted, insert, read_wordings
from egm.rationales.filters import build_filters, default_recipe, keep, run_filters
from egm.rationales.synthref import explained

BAR = 0.95
STYLES = ("official", "candidates", "amodal")


@dataclass
class Counts:
    planted: int = 0
    found: int = 0
    clean: int = 0
    wrong: int = 0
    missed: list[str] = dataclasses.field(default_factory=list)
    wrongly: list[str] = dataclasses.field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordings", choices=WORDINGS, default="held_out")
    parser.add_argument("--styles", nargs="+", default=list(STYLES))
    parser.add_argument("--rows", type=int, default=6_000, help="of each style")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=0, help="of what was missed, and of what was wrongly dropped")
    parser.add_argument("--pictures", action="store_true", help="also of pictures that are evaluated on")
    parser.add_argument("--speed", action="store_true", help="also rows a second, in one process and in two")
    options = parser.parse_args()
    for style in options.styles:
        measure(style, options)
    if options.pictures:
        measure_pictures()
    if options.speed:
        measure_speed()


def measure(style: str, options: Any) -> None:
    filters = build_filters(default_recipe(style))
    corruption = Corruption.evenly(0.5, seed=options.seed, wordings=options.wordings)
    counts = {each.name: Counts() for each in filters}
    kept_canned: set[str] = set()
    dropped_clean = clean = 0
    for candidate, planted in rows(style, corruption, options.rows):
        verdicts = run_filters(filters, candidate)
        against = {verdict.filter: verdict.why for verdict in verdicts if verdict.why is not None}
        kept = keep(filters, candidate, verdicts)
        is_first = planted.defect == "near_duplicate" and str(planted.kind) not in kept_canned
        if kept and planted.defect == "near_duplicate":
            kept_canned.add(str(planted.kind))
        if planted.defect is None:
            clean += 1
            dropped_clean += bool(against)
            for name, why in against.items():
                counts[name].wrong += 1
                counts[name].wrongly.append(f"{why} | {candidate.sample.phrase} | {candidate.text}")
        elif not is_first:
            counts[planted.defect].planted += 1
            counts[planted.defect].found += planted.defect in against
            if planted.defect not in against:
                counts[planted.defect].missed.append(f"{planted.kind} | {candidate.sample.phrase} | {candidate.text}")
    print(
        f"\n{style}: {options.rows} rows, wordings {options.wordings}, {clean} clean of which {dropped_clean} dropped"
    )
    for name, count in counts.items():
        if not count.planted and not count.wrong:
            continue
        recall = count.found / max(1, count.planted)
        precision = count.found / max(1, count.found + count.wrong)
        mark = "" if min(recall, precision) >= BAR else "  below the bar"
        print(f"  {name:16s} planted {count.planted:5d}  recall {recall:6.1%}  precision {precision:6.1%}{mark}")
        if count.missed:
            print(f"      missed by kind: {dict(Counter(text.partition(' | ')[0] for text in count.missed))}")
        for title, examples in (("missed", count.missed), ("wrongly dropped", count.wrongly)):
            for text in examples[: options.examples]:
                print(f"      {title}: {text[:300]}")


def rows(style: str, corruption: Corruption, count: int) -> Iterator[tuple[Candidate, Planted]]:
    innocent = read_wordings(corruption.wordings)["kept"]["innocent"]
    for sample, text in itertools.islice(explained("train", style=style, seed=corruption.seed), count):
        planted = corruption.plant(sample, text)
        rng = Rng(f"innocent/{sample.id}")
        if planted.defect is None and rng.chance(0.5):
            planted = Planted(insert_before_conclusion(text, rng.choice(innocent), rng))
        yield Candidate(sample, planted.text.strip(), style), planted


def insert_before_conclusion(text: str, sentence: str, rng: Rng) -> str:
    """An innocent sentence about another object is no conclusion, and stands before it."""
    sentences = text.split(". ")
    if len(sentences) == 1:
        return f"{sentence} {text}"
    return f"{insert('. '.join(sentences[:-1]) + '.', sentence, rng)} {sentences[-1]}"


def measure_pictures() -> None:
    """Rows of a frozen split under names of training rows, half of them mirrored, among rows of training."""
    from PIL import ImageOps

    recipe = {"evaluation_picture": {"against": ["synthref/val"], "pixels": True}}
    [check] = build_filters(recipe)
    train = [sample for sample, _ in itertools.islice(explained("train"), 500)]
    found = 0
    held_out = [sample for index in range(150) for sample in SynthRef("val").samples(index)[:1]]
    for k, sample in enumerate(held_out):
        picture: Any = sample.image
        renamed = dataclasses.replace(
            sample, id=f"row-{k}", image=ImageOps.mirror(picture) if k % 2 else picture.copy()
        )
        found += check.check(Candidate(renamed, "It is there.", "official")) is not None
    wrong = sum(check.check(Candidate(sample, "It is there.", "official")) is not None for sample in train)
    print(f"\nevaluation_picture: planted {len(held_out)}, recall {found / len(held_out):.1%}, ", end="")
    print(f"precision {found / max(1, found + wrong):.1%} ({len(train)} rows of training)")


def measure_speed() -> None:
    pass


if __name__ == "__main__":
    main()
