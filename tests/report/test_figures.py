from __future__ import annotations

import re

from egm.journal import Header
from egm.report.figures import latency_figure
from egm.report.points import points_of
from egm.report.runs import Run

from .conftest import MakeRecord


def test_a_derived_latency_says_so_on_the_chart(record: MakeRecord) -> None:
    split = "refcoco/val"
    header = Header("mine", {"name": "qwen3_vl"}, {}, {}, {split: {"n": 1}})
    points = points_of([Run("mine", header, [record("1", split=split, seconds=1.0)], {split: 1})], (split,))
    assert [point.name for point in points if point.derived] == ["Qwen3-VL-235B-A22B-Thinking"]
    chart = latency_figure(points, (split,))[".svg"].decode("utf-8")
    texts = re.findall(r"<!-- (.*?) -->", chart, re.DOTALL)  # the letters themselves are drawn as curves
    [label] = [text for text in texts if text.startswith("Qwen3-VL-235B-A22B-Thinking")]
    assert label.endswith("latency derived)")
    assert "18.9 times the 737 ms of EGM-Qwen3-VL-8B" in " ".join(" ".join(texts).split())
    assert not [text for text in texts if "Instruct (" in text and "derived" in text]
