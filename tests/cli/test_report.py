"""`egm report` on journals that `egm eval` wrote."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from egm.report.published import published

from .conftest import Egm

RIGHT = '</think> [{"bbox_2d": [0, 0, 1000, 1000]}]'


@pytest.fixture
def runs(egm: Egm, tmp_path: Path) -> tuple[Path, Path]:
    folders = []
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(RIGHT if name == "a" else "</think> none")
        command = ("eval", "synthref/val", "--scenes", 3, "--script", f"{name}.txt", "--model", name, "--out", name)
        assert egm(*command).code == 0
        folders.append(tmp_path / name)
    return folders[0], folders[1]


def test_tables_and_files(egm: Egm, runs: tuple[Path, Path], tmp_path: Path) -> None:
    outcome = egm("report", *runs, "--format", "csv", "--out", "out")
    assert (outcome.code, outcome.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(outcome.out)))
    assert [row["model"] for row in rows] == ["a", "b"]
    assert float(rows[1]["synthref/val"]) == 0.0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.md", "report.tex", "accuracy.csv", "latency.csv", "accuracy_tokens.svg"} <= written
    assert "accuracy_latency.png" not in written  # a script takes no time


def test_a_paired_comparison(egm: Egm, runs: tuple[Path, Path]) -> None:
    outcome = egm("report", *runs, "--paired")
    assert (outcome.code, outcome.err) == (0, "")
    assert "b minus a" in outcome.out
    assert "exact McNemar" in outcome.out


def test_an_incomplete_run_says_how_many_are_missing(egm: Egm, runs: tuple[Path, Path]) -> None:
    journal = runs[0] / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-2]))
    outcome = egm("report", runs[0])
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "incomplete: 2 of" in outcome.err
    assert "samples are missing" in egm("report", runs[0], "--allow-partial").out


def test_bad_input_is_one_line(egm: Egm, runs: tuple[Path, Path]) -> None:
    for arguments in (("nowhere",), (runs[0], "--paired"), (runs[0], runs[0]), (*runs, "--name", "x")):
        outcome = egm("report", *arguments)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)


def test_published_averages_that_are_not_the_mean_say_so() -> None:
    remarks = {row.model: " ".join(row.remarks) for row in published().rows}
    assert "91.65" in remarks["EGM-Qwen3-VL-8B"]
    assert "average is as published" not in remarks["EGM-Qwen3-VL-4B"]
