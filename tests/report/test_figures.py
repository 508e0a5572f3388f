from __future__ import annotations

import re

import pytest

from egm.journal import Header
from egm.report.figure_points import Point, points_of
from egm.report.figures import latency_figure
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


def bubble_areas(*points: Point) -> list[float]:
    """Areas of the circles on the chart that stand for models, in the order of the models."""
    chart = latency_figure(points, ("refcoco/val",))[".svg"].decode("utf-8")
    # A circle is drawn from its top on, around 0, 0; equal ones are drawn once, and those of the legend come last.
    radii = dict(re.findall(r'<path id="(\w+)" d="M 0 (\S+)', chart))
    circles = re.findall(r'id="PathCollection_\d+">.*?xlink:href="#(\w+)"', chart, re.DOTALL)
    return [float(radii[circle]) ** 2 for circle in circles[: len(points)]]


def test_bubbles_of_small_models_have_areas_like_their_parameters() -> None:
    small, large, published = (
        Point("m", 50.0, 49.0, 51.0, 10.0, 10.0, count, 1, False) for count in (40_000_000, 200_000_000, 8_000_000_000)
    )
    area, largest = bubble_areas(small, large)
    assert largest == pytest.approx(5 * area, rel=1e-3)
    # Beside a published size the scale is that of all charts of published sizes: small ones are all alike there.
    [alone] = bubble_areas(published)
    first, second, beside = bubble_areas(small, large, published)
    assert beside == alone
    assert first == second < beside


@pytest.mark.parametrize(("milliseconds", "accuracy"), [(600.0, 85.5), (600.0, 86.3), (12_000.0, 86.3)])
def test_the_legend_hides_no_interval(milliseconds: float, accuracy: float) -> None:
    ours = Point("mine", accuracy, accuracy - 0.4, accuracy + 0.4, milliseconds, 100.0, None, 64, False)
    theirs = [
        Point("8B", 91.4, None, None, 737.0, 101.0, 8_800_000_000, None, True),
        Point("235B", 88.2, None, None, 4320.0, None, 235_700_000_000, None, True),
        Point("235B-Thinking", 90.7, None, None, 13_929.0, None, 235_700_000_000, None, True),
    ]
    chart = latency_figure([*theirs, ours], ("refcoco/val",))[".svg"].decode("utf-8")

    def corners(group: str) -> list[tuple[float, float]]:
        path = chart.partition(f'id="{group}"')[2].partition(' d="')[2].partition('"')[0]
        numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path)]
        return list(zip(numbers[::2], numbers[1::2], strict=True))

    frame, ends = corners("legend_1"), corners("LineCollection_1")
    assert len(ends) == 2
    beside = any(x < min(p[0] for p in frame) or x > max(p[0] for p in frame) for x, _ in ends)
    above = all(y < min(p[1] for p in frame) for _, y in ends) or all(y > max(p[1] for p in frame) for _, y in ends)
    assert beside or above


def test_a_bubble_at_the_edge_is_whole() -> None:
    perfect = Point("m", 100.0, 99.0, 100.0, 10.0, 10.0, 200_000_000, 9, False)
    published = Point("8B", 100.0, None, None, 737.0, 101.0, 8_800_000_000, None, True)
    chart = latency_figure([perfect, published], ("refcoco/val",))[".svg"].decode("utf-8")
    bubbles = re.findall(r'id="PathCollection_\d+">(.*?)(?=<g id=)', chart, re.DOTALL)
    assert len(bubbles) >= 2
    assert not any("clip-path" in bubble for bubble in bubbles)
