"""Rewards on real answers of Qwen2.5-VL-3B: the share of hits is the Acc@0.5 that evaluation finds in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
from PIL import Image

from egm.backends import ScriptedBackend
from egm.boxes import Box
from egm.codecs import get_codec
from egm.datasets.registry import open_dataset
from egm.evaluate import evaluate
from egm.grounder import Grounder
from egm.report import Reading, read_records
from egm.training.rewards.reward import Reward, RewardSection
from egm.types import Completion, Sample

CODEC = get_codec("qwen2_5_vl")


@lru_cache
def picture(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size)


@pytest.mark.parametrize(("log", "accuracy"), [("baseline", 89.4), ("sft_500", 87.2), ("r1_500", 90.6)])
def test_accuracy_is_that_of_evaluation(
    real_data: Callable[[str], Path], tmp_path: Path, log: str, accuracy: float
) -> None:
    dataset = open_dataset("refcoco/val", data=real_data("refcoco/refcoco_val.json").parent)
    path = real_data(f"model_outputs/rec_results_refcoco_val_qwen2_5vl_3b_instruct_{log}.json.gz")
    known = [(dataset.name, sample) for sample in dataset]
    rows = read_records(path, samples=known, reading=Reading(CODEC, "original"), partial=True)
    sizes = [row.size for row in rows if row.size is not None]
    samples = [
        Sample(f"{i}", picture(size), f"thing {i};", Box(*row.truth), size)
        for i, (row, size) in enumerate(zip(rows, sizes, strict=True))
    ]
    replies = {s.phrase: Completion(row.text, seen_size=s.size) for s, row in zip(samples, rows, strict=True)}
    run = evaluate(samples, Grounder(ScriptedBackend(replies), CODEC), tmp_path / "run")
    measured = {record.id: record.iou for record in run.records}

    reward = Reward(RewardSection.model_validate({"terms": [{"kind": "iou"}]}), CODEC)
    truths = [row.truth for row in rows]
    totals = reward([None] * len(rows), [row.text for row in rows], None, truth=truths, size=sizes, seen_size=sizes)
    hits = 100 * sum(total >= 0.5 for total in totals) / len(totals)
    assert totals == [measured[f"{i}"] for i in range(500)] == [row.iou for row in rows]
    assert hits == pytest.approx(100 * run.summary()["all"]["accuracy"])
    assert hits == pytest.approx(accuracy, abs=0.05)
