"""Summaries and comparisons as tables, in the forms that a table has."""

from __future__ import annotations

import csv
import io

from egm.report import compare, interval_summary
from egm.report.grid import Grid, csv_text, latex, markdown
from egm.report.tables import comparison_grids, summary_grids

from .conftest import MakeRecord

OFF = (300.0, 300.0, 310.0, 310.0)


def rows_of(grid: Grid) -> dict[str, dict[str, str]]:
    table = csv.DictReader(io.StringIO(csv_text(grid)))
    return {row["name"]: row for row in table}


def test_the_tables_of_a_summary(record: MakeRecord) -> None:
    records = [
        record("1", "a.jpg", split="x", phrase="cup"),
        record("2", "b.jpg", split="x", phrase="second cup from the left", box=None, failure="truncated"),
        record("3", "c.jpg", split="y", phrase="cup", box=OFF),
        record("4", "d.jpg", split="y", phrase="red cup", box=None, failure="refused"),
    ]
    grids = {grid.title: rows_of(grid) for grid in summary_grids(interval_summary(records))}
    metrics = grids["accuracy and IoU, %"]
    assert {name: (row["rows"], row["Acc@0.5"]) for name, row in metrics.items()} == {
        "x": ("2", "50.00"),
        "y": ("2", "0.00"),
        "average of splits": ("4", "25.00"),
        "all rows": ("4", "25.00"),
        "all rows, by bootstrap": ("4", "25.00"),
    }
    assert metrics["all rows"]["Acc@0.5 low"] != metrics["all rows, by bootstrap"]["Acc@0.5 low"]
    assert metrics["all rows, by bootstrap"]["Acc@0.75"] == ""
    assert {name: row["Acc@0.5"] for name, row in grids["words in the phrase"].items()} == {
        "1": "50.00",
        "2": "0.00",
        "4-5": "0.00",
    }
    assert {name: (row["rows"], row["share"]) for name, row in grids["misses"].items()} == {
        "no box": ("2", "66.7 %"),
        "no box: truncated": ("1", ""),
        "no box: refused": ("1", ""),
        "other": ("1", "33.3 %"),
    }
    complex_phrases = grids["complex phrases (2 or more of these)"]
    assert complex_phrases["share among misses"]["%"] == "33.33"
    assert complex_phrases["share among all rows"]["%"] == "25.00"


def test_a_summary_of_one_split_has_one_line_of_metrics_and_its_bootstrap(record: MakeRecord) -> None:
    metrics = summary_grids(interval_summary([record("1", split="x"), record("2", split="x")]))[0]
    assert list(rows_of(metrics)) == ["x", "x, by bootstrap"]
    metrics = summary_grids(interval_summary([record("1"), record("2")]))[0]
    assert list(rows_of(metrics)) == ["all rows", "all rows, by bootstrap"]


def test_of_many_categories_the_largest_are_shown(record: MakeRecord) -> None:
    records = [
        record(f"{number}-{times}", meta={"category": f"kind {number:02}"})
        for number in range(22)
        for times in range(1 if number in (3, 7) else 2)
    ]
    [grid] = [grid for grid in summary_grids(interval_summary(records)) if grid.title == "category"]
    assert list(rows_of(grid)) == [f"kind {number:02}" for number in range(22) if number not in (3, 7)]
    assert grid.notes == ("2 more with fewer rows",)


def test_no_name_steers_what_shows_it(record: MakeRecord) -> None:
    evil = "x\x1b[2J\n\u202ey"
    first = [
        record(str(n), split=evil, box=None, failure=evil, meta={"category": evil, "kind": evil}) for n in range(2)
    ]
    second = [record(str(n), split=evil) for n in range(2)]
    grids = summary_grids(interval_summary(first)) + comparison_grids(compare(first, second), (evil, "B"))
    for form in (markdown, latex, csv_text):
        text = "".join(map(form, grids))
        assert "\N{REPLACEMENT CHARACTER}" in text
        assert all(char.isprintable() for line in text.split("\n") for char in line)
