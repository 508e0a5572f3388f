"""Accuracy by length of thinking and by complexity, and thinking that contradicts its own box, in real answers.

    uv run python benchmarks/thinking_lengths.py LOGS ANNOTATIONS

LOGS holds predictions as VLM-R1's evaluation writes them (`rec_results_*.json.gz`): real answers of Qwen2.5-VL-3B to
500 phrases of RefCOCO val, before training, after SFT and after GRPO, whose boxes are pixels of the original picture.
ANNOTATIONS is the folder of RefCOCO's annotations (`--data-root` of egm), for pictures and their sizes. Answers are
matched and scored as `egm score LOG --data refcoco/val --codec qwen2_5_vl --pixels-of original --allow-partial` does.

Intervals are for 95 % and clustered by picture. Thinking is what stands before `</think>`, its length in words; bins
are quarters of the answers of a log. A contradiction is what `egm rationales` drops as one (`contradiction`), held
against the box that was answered, and against the true one. That filter was judged on answers of these logs against
true boxes (docs/rationales.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from egm import stats
from egm.boxes import Box
from egm.codecs import get_codec
from egm.codecs.parsing.reading import split_reasoning
from egm.datasets import open_dataset
from egm.failures import phrase_facts
from egm.journal import Record
from egm.rationales.candidate import Candidate
from egm.rationales.filters.contradiction import Contradiction
from egm.report import compare, read_records
from egm.report.predictions import Reading
from egm.report.summary import cluster_numbers, hits_of
from egm.stats import Estimate
from egm.types import Sample


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, help="folder of the predictions")
    parser.add_argument("annotations", type=Path, help="folder of RefCOCO's annotations")
    options = parser.parse_args()
    samples = [
        ("refcoco/val", sample) for sample in open_dataset("refcoco/val", data=options.annotations).annotations()
    ]
    reading = Reading(get_codec("qwen2_5_vl"), "original")
    logs = {
        path.name.removesuffix(".json.gz").rpartition("instruct_")[2]: read_records(
            path, samples=samples, reading=reading, partial=True
        )
        for path in sorted(options.logs.glob("rec_results_*.json.gz"))
    }
    print(f"{'log':12}{'group':34}{'n':>6}{'Acc@0.5, % (95 %)':>26}")
    for name, records in logs.items():
        for group, rows in groups_of(records).items():
            print(f"{name:12}{group:34}{len(rows):6}{percent(accuracy(rows)):>26}")
    print()
    first = next((name for name in logs if name.startswith("baseline")), next(iter(logs)))
    for name in logs:
        if name != first:
            print_differences(first, logs[first], name, logs[name])


def groups_of(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The rows of a log by what is told of them; those that do not apply are left out."""
    groups = {"all": list(records)}
    for label, is_complex in (("simple phrases", False), ("complex phrases", True)):
        groups[label] = [record for record in records if phrase_facts(record.phrase).is_complex == is_complex]
    lengths = np.array([len(thinking(record).split()) for record in records])
    if lengths.any():
        ends = np.quantile(lengths, (0.25, 0.5, 0.75, 1.0))
        quarter = np.searchsorted(ends, lengths)
        for number in range(4):
            chosen = np.flatnonzero(quarter == number)
            if len(chosen):
                words = lengths[chosen]
                groups[f"thinking of {words.min()}-{words.max()} words"] = [records[row] for row in chosen]
        for what, which in (("answered", "box"), ("true", "truth")):
            against = [contradicts(record, getattr(record, which)) for record in records]
            for label, wanted in (("contradicts", True), ("fits", False)):
                rows = [record for record, found in zip(records, against, strict=True) if found is wanted]
                groups[f"thinking {label} the {what} box"] = rows
    return {label: rows for label, rows in groups.items() if rows}


def thinking(record: Record) -> str:
    """What a model wrote before it answered."""
    return split_reasoning(record.text, thinking_prefilled=False)[0].strip()


def contradicts(record: Record, corners: Sequence[float] | None) -> bool | None:
    """Whether what a model thought cannot be of a box; None where there is no box or no thought."""
    said = thinking(record)
    if not said or corners is None or record.size is None:
        return None
    boxed = Sample(record.id, record.image, record.phrase, Box(*corners), record.size)
    return Contradiction().check(Candidate(boxed, said, "real", codec=get_codec("qwen2_5_vl"))) is not None


def print_differences(first: str, before: Sequence[Record], name: str, after: Sequence[Record]) -> None:
    """Print the paired difference of two logs, over all phrases, simple ones and complex ones."""
    for label in ("all", "simple phrases", "complex phrases"):
        found = compare(groups_of(before)[label], groups_of(after)[label])
        points, test = found.accuracy.analytic, found.mcnemar
        print(
            f"{name} minus {first}, {label}: n {found.rows}, {100 * points.value:+.2f} points "
            f"({100 * points.low:+.2f} to {100 * points.high:+.2f}), only {first} {test.only_a}, only {name} "
            f"{test.only_b}, exact McNemar p {test.p_value:.4f}"
        )


def accuracy(records: Sequence[Record]) -> Estimate:
    """Acc@0.5, its interval clustered by picture."""
    return stats.cluster_mean(hits_of(records), cluster_numbers(records))


def percent(estimate: Estimate) -> str:
    """An estimate in percent with its interval."""
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}-{100 * estimate.high:.1f})"


if __name__ == "__main__":
    main()
