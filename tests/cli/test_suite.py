"""`egm eval --suite`: all splits of a table by one name, whole or by a choice of pictures, and the table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from egm.datasets import EVALUATION
from egm.journal import read_journal
from egm.report.published import published

from .conftest import Egm

SUITE = ("eval", "--suite", "refcoco", "--data-root", "data", "--images", "pictures", "--allow-partial")
pytestmark = pytest.mark.usefixtures("small_refcoco")


def test_the_cards_row_stands_beside_the_published_ones(egm: Egm, tmp_path: Path) -> None:
    outcome = egm(*SUITE, "--script", "right.txt", "--model", "mine")
    assert outcome.code == 0, outcome.err
    header, records = read_journal(tmp_path / "runs" / "eval" / "mine_refcoco")
    assert list(header.datasets) == list(EVALUATION)
    assert len(records) == 80
    assert all("choice" not in facts for facts in header.datasets.values())
    table = outcome.out.partition("Acc@0.5, %")[2]
    assert all(row.model in table for row in published().rows)
    assert re.search(r"mine .*" + r"100\.0\d* +" * 8 + r"100\.0", table)
    assert re.search(r"questions +" + "10 +" * 8 + "80", table)


def test_a_choice_of_pictures_is_named_wherever_figures_are(egm: Egm) -> None:
    command = (*SUITE, "--limit", 2, "--script", "right.txt", "--out", "run")
    outcome = egm(*command)
    assert outcome.code == 0, outcome.err
    said = "the 2 pictures of seed 0, of 4"
    assert f"scripted, only {said}" in outcome.out
    assert f"only {said}" in " ".join(outcome.out.partition("Acc@0.5, %")[2].split())
    header, records = read_journal("run")
    assert len({record.image for record in records}) == 2
    assert all(facts["choice"] == {"pictures": 2, "whole": 4, "seed": 0} for facts in header.datasets.values())
    n = len(records) // 8
    assert all(facts["n"] == n for facts in header.datasets.values())
    numbers = json.loads(egm(*command, "--json").out)
    assert (numbers["average"], numbers["choice"], numbers["samples"]) == (1.0, said, 8 * n)
    report = egm("report", "run", "--format", "markdown").out
    assert report.count(f"only {said}") == 2  # beside accuracy and latency
    assert "expressions of" not in report
    other = egm(*SUITE, "--limit", 3, "--script", "right.txt", "--out", "run")
    assert (other.code, "datasets.refcoco/val.choice.pictures is 3, was 2" in other.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name datasets, such as synthref/val, or a --suite"),
        (("refcoco/val", "--suite", "refcoco"), "leave the datasets out"),
        (("--suite", "synthref", "--scenes", 3), "with --suite give --limit"),
        (("--suite", "coco"), "there is no suite 'coco'"),
        ((*SUITE[1:], "--limit", 5), "5 pictures cannot be chosen of 4"),
        (("--suite", "refcoco", "--data-root", "nowhere"), "no annotations of refcoco/val in 'nowhere'"),
    ],
)
def test_bad_input_is_one_line(egm: Egm, arguments: tuple[object, ...], said: str) -> None:
    outcome = egm("eval", *arguments, "--script", "right.txt")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert said in outcome.err
