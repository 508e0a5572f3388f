"""`egm score` on real answers of Qwen2.5-VL-3B, before training, after SFT and after GRPO."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from egm.codecs import get_codec
from egm.datasets.registry import open_dataset
from egm.failures import phrase_facts
from egm.journal import Record
from egm.report import Reading, compare, interval_summary, read_records
from egm.report.predictions import neighbours_in

LOGS = ("baseline", "sft_500", "r1_500")
READING = Reading(get_codec("qwen2_5_vl"), "original")


@pytest.fixture(scope="module")
def samples(real_data: Callable[[str], Path]) -> list[tuple[str, Any]]:
    dataset = open_dataset("refcoco/val", data=real_data("refcoco/refcoco_val.json").parent)
    return [(dataset.name, sample) for sample in dataset]


def log_path(real_data: Callable[[str], Path], log: str) -> Path:
    return real_data(f"model_outputs/rec_results_refcoco_val_qwen2_5vl_3b_instruct_{log}.json.gz")


@pytest.fixture(scope="module")
def records(real_data: Callable[[str], Path], samples: list[tuple[str, Any]]) -> dict[str, list[Record]]:
    return {log: read_records(log_path(real_data, log), samples=samples, reading=READING, partial=True) for log in LOGS}


@pytest.mark.parametrize(
    ("log", "accuracy", "low", "high", "mean_iou"),
    [
        ("baseline", 89.4, 86.3, 91.9, 80.2),
        ("sft_500", 87.2, 83.9, 89.9, 74.7),
        ("r1_500", 90.6, 87.6, 92.9, 80.7),
    ],
)
def test_figures_of_the_logs(
    records: dict[str, list[Record]],
    samples: list[tuple[str, Any]],
    log: str,
    accuracy: float,
    low: float,
    high: float,
    mean_iou: float,
) -> None:
    summary = interval_summary(records[log], neighbours=neighbours_in(samples))
    hits = summary.pooled["acc@0.5"]
    assert (summary.rows, summary.images) == (500, 418)
    assert 100 * hits.value == pytest.approx(accuracy, abs=0.05)
    assert (100 * hits.low, 100 * hits.high) == pytest.approx((low, high), abs=0.06)
    assert 100 * summary.pooled["mean_iou"].value == pytest.approx(mean_iou, abs=0.06)
    # No real IoU is exactly 0.5, and the two kinds of interval agree.
    assert summary.pooled["acc>0.5"] == hits
    for key, boot in summary.bootstrap.items():
        assert (boot.low, boot.high) == pytest.approx((summary.pooled[key].low, summary.pooled[key].high), abs=0.006)
    assert sum(summary.misses.values()) == round(500 * (1 - hits.value))
    assert summary.no_box == {}
    # Complex phrases are overrepresented among the misses, though far from the card's 62.8 % on these short phrases.
    assert summary.complexity.among_misses is not None
    assert summary.complexity.among_misses.value > 1.5 * summary.complexity.base_rate.value


@pytest.mark.parametrize(
    ("first", "second", "only_first", "only_second", "significant_iou"),
    [("baseline", "r1_500", 12, 18, False), ("baseline", "sft_500", 23, 12, True), ("sft_500", "r1_500", 14, 31, True)],
)
def test_paired_tests_of_the_logs(
    records: dict[str, list[Record]],
    first: str,
    second: str,
    only_first: int,
    only_second: int,
    significant_iou: bool,
) -> None:
    result = compare(records[first], records[second])
    assert (result.rows, result.only_in_a, result.only_in_b) == (500, 0, 0)
    assert (result.mcnemar.only_a, result.mcnemar.only_b) == (only_first, only_second)
    assert (result.mean_iou.p_value < 0.001) == significant_iou
    assert result.mean_iou.analytic.contains(0.0) != significant_iou
    assert (result.mcnemar.p_value < 0.05) == (not result.accuracy.analytic.contains(0.0))


def test_the_log_alone_gives_the_same_figures_with_its_own_truth(
    real_data: Callable[[str], Path], records: dict[str, list[Record]]
) -> None:
    alone = read_records(log_path(real_data, "r1_500"), reading=READING)
    assert [record.iou for record in alone] == pytest.approx([record.iou for record in records["r1_500"]])
    assert interval_summary(alone).images == 0


def test_a_wrong_convention_shows(real_data: Callable[[str], Path], samples: list[tuple[str, Any]]) -> None:
    reading = Reading(get_codec("qwen3_vl_instruct"))
    wrong = read_records(log_path(real_data, "baseline"), samples=samples, reading=reading, partial=True)
    assert interval_summary(wrong).pooled["acc@0.5"].value < 0.3


def test_base_rates_of_complex_phrases(real_data: Callable[[str], Path]) -> None:
    def share(split: str) -> float:
        rows = json.loads(real_data(f"refcoco/{split}.json").read_text(encoding="utf-8"))
        return sum(phrase_facts(row["sents"]).is_complex for row in rows) / len(rows)

    refcoco, plus, google = share("refcoco_val"), share("refcoco+_val"), share("refcocog_val")
    # RefCOCO+ forbids words of place.
    assert plus < 0.06 < google < 0.25
    assert plus < refcoco < 0.3
