"""The filters on real answers, against what two readings thought of 150 of them; the list has no answer's text."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from egm.datasets import open_dataset
from egm.rationales.candidate import Candidate
from egm.rationales.filters import build_filters, default_recipe, keep, run_filters

JUDGED = Path(__file__).parents[2] / "benchmarks" / "rationale_filters_judged.jsonl"
_THINKING = re.compile(r"<think>(.*?)</think>", re.DOTALL)


def dropped(answers: list[dict[str, Any]], samples: dict[tuple[str, tuple[int, ...]], Any]) -> list[list[str]]:
    """Names of the filters that drop each answer's reasoning, or the whole answer where it has none."""
    filters = build_filters(default_recipe("official"))
    found = []
    for answer in answers:
        phrase = answer["question"].partition("describes: ")[2]
        sample = samples[_key(phrase, answer["ground_truth"])]
        thinking = _THINKING.search(answer["model_output"])
        text = (thinking[1] if thinking else answer["model_output"]).strip()
        candidate = Candidate(sample, text, "official")
        verdicts = run_filters(filters, candidate)
        keep(filters, candidate, verdicts)
        found.append(sorted(verdict.filter for verdict in verdicts if not verdict.keeps))
    return found


def _key(phrase: str, box: Any) -> tuple[str, tuple[int, ...]]:
    return phrase.strip().rstrip(".").lower(), tuple(round(value) for value in box)


def _verdicts(judged: list[dict[str, Any]], reading: str, dropped: bool) -> list[bool]:
    return [row[reading] for row in judged if bool(row["dropped"]) == dropped and row[reading] is not None]


def test_what_is_dropped_of_real_answers_deserves_it(real_data: Callable[[str], Path]) -> None:
    judged = [json.loads(line) for line in JUDGED.read_text().splitlines()]
    dataset = open_dataset("refcoco/val", data=real_data("refcoco"))
    samples = {_key(sample.phrase, sample.box): sample for sample in dataset.annotations()}
    decided = {
        name: dropped(json.loads(gzip.decompress(real_data(f"model_outputs/{name}").read_bytes()))["results"], samples)
        for name in sorted({row["file"] for row in judged})
    }
    assert [decided[row["file"]][row["index"]] for row in judged] == [row["dropped"] for row in judged]
    first, second = (
        {flag: _verdicts(judged, reading, flag) for flag in (True, False)} for reading in ("first", "second")
    )
    assert [len(first[True]), sum(first[True]), len(first[False]), sum(first[False])] == [50, 49, 50, 2]
    assert [len(second[True]), sum(second[True]), len(second[False]), sum(second[False])] == [50, 49, 100, 12]
    wordless = next(rows for name, rows in decided.items() if "baseline" in name)
    assert all("failure" in names for names in wordless)
