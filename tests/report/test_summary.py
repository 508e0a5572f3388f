from __future__ import annotations

import json
from dataclasses import replace

import pytest

from egm.boxes import Box
from egm.errors import DataError
from egm.failures import Neighbour
from egm.journal import Record
from egm.report import METRICS, compare, interval_summary

from .conftest import MakeRecord

HALF = (0.0, 0.0, 100.0, 50.0)  # IoU 0.5 with the truth, its centre inside
WIDE = (0.0, 0.0, 125.0, 100.0)  # 0.8
OFF = (300.0, 300.0, 310.0, 310.0)


@pytest.fixture
def records(record: MakeRecord) -> list[Record]:
    return [
        record("1", "a.jpg", split="x/val", phrase="cup"),
        record("2", "a.jpg", split="x/val", phrase="left cup", box=HALF),
        record("3", "b.jpg", split="x/val", phrase="second cup from the left", box=WIDE),
        record("4", "c.jpg", split="y/val", phrase="tallest cup not on the table", box=OFF),
        record("5", "c.jpg", split="y/val", phrase="cup", box=None, failure="truncated"),
    ]


def test_every_figure_by_hand(records: list[Record]) -> None:
    summary = interval_summary(records)
    assert (summary.rows, summary.images) == (5, 3)
    values = {key: estimate.value for key, estimate in summary.pooled.items()}
    assert list(values) == list(METRICS)
    assert values == {
        "acc@0.5": pytest.approx(3 / 5),
        "acc>0.5": pytest.approx(2 / 5),
        "acc@0.75": pytest.approx(2 / 5),
        "acc@0.9": pytest.approx(1 / 5),
        # 1 + 0.1 (0.5 alone) + 0.7 (0.5 to 0.8).
        "macc@0.5:0.95": pytest.approx(1.8 / 5),
        "mean_iou": pytest.approx((1 + 0.5 + 0.8) / 5),
        "centre": pytest.approx(3 / 5),
    }
    assert summary.average is not None
    assert summary.average["acc@0.5"].value == pytest.approx((1 + 0) / 2)
    assert {name: split["acc@0.5"].rows for name, split in summary.splits.items()} == {"x/val": 3, "y/val": 2}
    assert summary.bootstrap["acc@0.5"].value == values["acc@0.5"]


def test_groups_and_complexity(records: list[Record]) -> None:
    summary = interval_summary(records)
    counts = {name: {label: e.rows for label, e in rows.items()} for name, rows in summary.groups.items()}
    assert counts == {
        "words": {"1": 2, "2": 1, "4-5": 1, "6-8": 1},
        "relations": {"0": 2, "1": 3},
        "complexity": {"0": 2, "1": 1, "2": 1, "3": 1},
        "size": {"large": 5},
    }
    assert summary.complexity.base_rate.value == pytest.approx(2 / 5)
    assert summary.complexity.among_misses is not None
    assert summary.complexity.among_misses.value == pytest.approx(1 / 2)
    assert summary.complexity.accuracy_complex is not None
    assert summary.complexity.accuracy_complex.value == pytest.approx(1 / 2)
    assert summary.complexity.accuracy_simple is not None
    assert summary.complexity.accuracy_simple.value == pytest.approx(2 / 3)


def test_negation_is_said_by_yes_or_no_alone(record: MakeRecord) -> None:
    said = (True, 0, ["x"], "no", None)
    rows = [record(str(n), meta={"use_negation": each}) for n, each in enumerate(said)]
    groups = interval_summary(rows, draws=100).groups["negation"]
    assert {label: estimate.rows for label, estimate in groups.items()} == {"no": 1, "yes": 1}


def test_sizes_shares_and_categories(record: MakeRecord) -> None:
    small, medium = (0.0, 0.0, 31.0, 32.0), (0.0, 0.0, 32.0, 32.0)
    summary = interval_summary(
        [
            record("1", truth=small, meta={"category": "cup", "kind": "plain"}),
            record("2", truth=medium, size=(64, 64), meta={"category_id": 10}),
            record("3", truth=(0.0, 0.0, 96.0, 96.0), size=(96, 96)),
        ]
    )
    groups = {name: list(rows) for name, rows in summary.groups.items()}
    assert groups["size"] == ["small", "medium", "large"]
    assert groups["share"] == ["20-40 %", "> 40 %"]
    assert groups["category"] == ["10", "cup"]
    assert groups["kind"] == ["plain"]


@pytest.mark.parametrize(
    ("width", "share", "size"),
    [
        (49, "< 5 %", "medium"),  # of 1000 x 100 pixels
        (50, "5-10 %", "medium"),
        (92, "5-10 %", "medium"),
        (93, "5-10 %", "large"),
        (100, "10-20 %", "large"),
        (200, "20-40 %", "large"),
        (400, "> 40 %", "large"),
    ],
)
def test_the_borders_of_shares_and_sizes(record: MakeRecord, width: int, share: str, size: str) -> None:
    groups = interval_summary([record("1", truth=(0.0, 0.0, float(width), 100.0), size=(1000, 100))]).groups
    assert (list(groups["share"]), list(groups["size"])) == ([share], [size])


def test_misses_know_the_other_objects_of_their_picture(record: MakeRecord) -> None:
    other = (200.0, 0.0, 300.0, 100.0)
    records = [
        record("1", "a.jpg", box=other, meta={"category": "cup"}),
        record("2", "a.jpg", truth=other, meta={"category": "cup"}),
        record("3", "b.jpg", box=other),
        record("4", "b.jpg", box=None, failure="error", error="the server closed the connection"),
    ]
    summary = interval_summary(records)
    assert summary.misses == {"no_box": 1, "wrong_same_kind": 1, "other": 1}
    assert summary.no_box == {"error": 1}
    # A dataset knows objects that nobody was asked for here.
    known = {"b.jpg": [Neighbour(Box(*other))]}
    assert interval_summary(records, neighbours=known).misses == {"no_box": 1, "wrong_same_kind": 1, "wrong_object": 1}
    right = [replace(record, box=record.truth, iou=1.0, failure=None) for record in records]
    assert compare(records, right, neighbours=known).missed_by_a == interval_summary(records, neighbours=known).misses
    assert compare(right, records).missed_by_b == summary.misses


def test_unknown_pictures_are_said(record: MakeRecord) -> None:
    records = [record("1", ""), record("2", "", box=None), record("3", "", box=OFF), record("4", "")]
    summary = interval_summary(records)
    assert (summary.images, summary.pooled["acc@0.5"].clusters) == (0, 4)
    assert compare(records, records).images == 0
    # And an object of an unknown picture is not another object of this one.
    assert summary.misses == {"no_box": 1, "other": 1}


def test_a_summary_is_json(records: list[Record]) -> None:
    again = json.loads(json.dumps(interval_summary(records).to_dict(), allow_nan=False))
    assert again["pooled"]["acc@0.5"]["value"] == pytest.approx(0.6)
    assert json.loads(json.dumps(compare(records, records).to_dict(), allow_nan=False))["rows"] == 5


def test_all_hits_leave_no_misses(record: MakeRecord) -> None:
    summary = interval_summary([record("1"), record("2")])
    assert (summary.misses, summary.complexity.among_misses, summary.complexity.accuracy_complex) == ({}, None, None)
    assert summary.average is None


def test_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="no records"):
        interval_summary([])


def test_a_comparison_by_hand(records: list[Record], record: MakeRecord) -> None:
    better = [
        record("5", "c.jpg", split="y/val", phrase="cup"),  # other order
        record("1", "a.jpg", split="x/val", phrase="cup", box=OFF),
        record("2", "a.jpg", split="x/val", phrase="left cup", box=HALF),
        record("4", "c.jpg", split="y/val", phrase="tallest cup not on the table"),
        record("9", "c.jpg", split="y/val"),
        record("1", "c.jpg", split="y/val"),  # the same id in another split
    ]
    result = compare(records, better)
    assert (result.rows, result.only_in_a, result.only_in_b, result.images) == (4, 1, 2, 2)
    mcnemar = result.mcnemar
    assert (mcnemar.only_a, mcnemar.only_b, mcnemar.both, mcnemar.neither) == (1, 2, 1, 0)
    assert mcnemar.p_value == 1.0
    assert result.accuracy.analytic.value == pytest.approx(1 / 4)
    assert result.mean_iou.analytic.value == pytest.approx((-1 + 0 + 1 + 1) / 4)
    assert {name: (m.only_a, m.only_b) for name, m in result.splits.items()} == {"x/val": (1, 0), "y/val": (0, 2)}


def test_what_cannot_be_compared_is_refused(records: list[Record], record: MakeRecord) -> None:
    with pytest.raises(DataError, match="share no item"):
        compare(records, [record("1", split="z/val")])
    with pytest.raises(DataError, match="not about the same dataset"):
        compare(records, [record("1", split="x/val", truth=OFF)])
    with pytest.raises(DataError, match="not about the same dataset"):
        compare(records, [record("1", split="x/val", phrase="mug")])
    same = next(each for each in records if each.id == "1")
    with pytest.raises(DataError, match="'1' was asked with --expect one in the first file and with --expect any in"):
        compare(records, [replace(same, expect="any")])
