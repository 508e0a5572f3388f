"""`egm report` on journals that `egm eval` wrote."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from egm.datasets.synthetic import SynthRef
from egm.report.published import published

from .conftest import Egm

WHOLE = '</think> [{"bbox_2d": [0, 0, 1000, 1000]}]'


@pytest.fixture
def runs(egm: Egm, tmp_path: Path) -> tuple[Path, Path]:
    """The first is right at every second sample, the second never."""
    right = []
    for number, sample in enumerate(SynthRef("val", scenes=3)):
        assert sample.box is not None
        assert sample.size is not None
        corners = list(sample.box.to_1000(sample.size)) if number % 2 else [0, 0, 1, 1]
        right.append(f'It is there.</think> [{{"bbox_2d": {corners}}}]')
    folders = []
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("\n".join(right) if name == "a" else "</think> none")
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


def test_a_paired_comparison(egm: Egm, runs: tuple[Path, Path], tmp_path: Path) -> None:
    outcome = egm("report", *runs, "--paired")
    assert (outcome.code, outcome.err) == (0, "")
    assert "b minus a" in outcome.out
    assert "exact McNemar" in outcome.out
    assert egm("report", *runs, "--paired", "--format", "markdown", "--out", "out").code == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "**b minus a**" in text
    assert "| no box |" in text  # how b missed what a got
    comparison = json.loads((tmp_path / "out" / "paired.json").read_text())
    assert comparison["missed_by_b"] == {"no_box": comparison["mcnemar"]["only_a"]}
    assert comparison["missed_by_a"] == {}


def test_a_gallery(egm: Egm, runs: tuple[Path, Path], tmp_path: Path) -> None:
    outcome = egm("report", *runs, "--gallery", "out/gallery.html", "--gallery-items", 5)
    assert (outcome.code, outcome.err) == (0, "")
    text = (tmp_path / "out" / "gallery.html").read_text("utf-8")
    assert text.count("<article") == 5
    assert 'data-outcome="no_box"' in text


def test_a_gallery_of_pictures_on_disk_needs_their_folder(egm: Egm, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "pictures" / "a.png")
    row = {"image": "a.png", "sent": "cup", "bbox": [1, 1, 60, 40], "width": 64, "height": 48}
    (tmp_path / "set.jsonl").write_text(json.dumps(row))
    (tmp_path / "script.txt").write_text(WHOLE)
    run = ("eval", "set.jsonl", "--images", "pictures", "--script", "script.txt", "--out", "run")
    assert egm(*run).code == 0
    for arguments in ((), ("--images", "nowhere"), ("--images", ".")):
        outcome = egm("report", "run", "--gallery", "g.html", *arguments)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert "--images" in outcome.err
    assert not (tmp_path / "g.html").exists()
    assert egm("report", "run", "--gallery", "g.html", "--images", "pictures").code == 0
    assert "data:image/webp" in (tmp_path / "g.html").read_text("utf-8")


def test_an_incomplete_run_says_how_many_are_missing(egm: Egm, runs: tuple[Path, Path]) -> None:
    journal = runs[0] / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-2]))
    outcome = egm("report", runs[0])
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "incomplete: 2 of" in outcome.err
    assert "samples are missing" in egm("report", runs[0], "--allow-partial").out


def test_bad_input_is_one_line(egm: Egm, runs: tuple[Path, Path]) -> None:
    for arguments in (
        ("nowhere",),
        (runs[0], "--paired"),
        (*runs, "--paired", "--format", "csv"),
        (runs[0], runs[0]),
        (*runs, "--name", "x"),
        (runs[0], "--images", "."),
        (runs[0], "--gallery", runs[0]),
    ):
        outcome = egm("report", *arguments)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)


def test_a_choice_that_there_is_not_is_said_in_plain_words(egm: Egm) -> None:
    outcome = egm("report", "run", "--format", "html")
    assert outcome.code == 2
    assert "'--format': 'html' is not one of 'terminal'" in " ".join(outcome.err.split())


def test_published_averages_that_are_not_the_mean_say_so() -> None:
    remarks = {row.model: " ".join(row.remarks) for row in published().rows}
    assert "91.65" in remarks["EGM-Qwen3-VL-8B"]
    assert "average is as published" not in remarks["EGM-Qwen3-VL-4B"]


def test_doubtful_truths_stand_beside_the_whole_and_are_marked(
    egm: Egm, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    ids = [sample.id for number, sample in enumerate(SynthRef("val", scenes=3)) if not number % 2]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    outcome = egm("report", runs[0], "--doubtful", "ids.txt", "--gallery", "page.html", "--out", "out")
    assert (outcome.code, outcome.err) == (0, "")
    rows = {row["questions"]: row for row in csv.DictReader((tmp_path / "out" / "known_truths.csv").open())}
    assert float(rows["without the doubtful ones"]["synthref/val"]) == 100.0
    assert float(rows["the doubtful ones alone"]["synthref/val"]) == 0.0
    assert (tmp_path / "page.html").read_text().count("doubtful truth") == len(ids)
    refused = egm("report", runs[0], "--doubtful", "nowhere.txt")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)


def test_files_for_the_hub_are_of_models_that_were_asked(egm: Egm, runs: tuple[Path, Path], tmp_path: Path) -> None:
    said = "the answers of a were read from a file, so no model was evaluated"
    for arguments, message in (
        ((runs[0], "--hub", "hub"), said),
        ((*runs, "--hub", "hub"), "--hub writes the results of one model, not of 2"),
        ((runs[0], "--hub-dataset", "synthref=me/x"), "say where to write them with --hub DIR"),
        ((runs[0], "--hub", "hub", "--hub-dataset", "me/x"), "must be NAME=OWNER/NAME"),
    ):
        outcome = egm("report", *arguments)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert message in outcome.err
    # As a journal of a model behind a server is: what is written is named.
    journal = runs[0] / "journal.jsonl"
    header, *lines = journal.read_text().splitlines()
    count = len(list(SynthRef("val", scenes=3)))
    served = {**json.loads(header), "engine": {"backend": "OpenAIBackend"}}
    served["datasets"] = {"mine/val": {**served["datasets"].pop("synthref/val"), "n": count}}
    rows = [{**json.loads(line), "split": "mine/val"} for line in lines]
    for facts in served["datasets"].values():
        facts.pop("questions")
    journal.write_text("\n".join(map(json.dumps, [served, *rows])) + "\n")
    outcome = egm("report", runs[0], "--hub", "hub", "--hub-dataset", "mine=me/mine")
    assert outcome.code == 0, outcome.err
    assert "note: wrote hub/model/.eval_results/mine.yaml" in outcome.err
    assert "id: me/mine" in (tmp_path / "hub" / "model" / ".eval_results" / "mine.yaml").read_text()
