"""`egm eval --suite hard` and `all`: benchmarks of all kinds in one run, and their table beside the published rows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from egm.datasets import EVALUATION, open_dataset
from egm.errors import DataError
from egm.evaluate.plan import plan_samples
from egm.evaluate.suites import HARD, SUITES
from egm.journal import read_journal
from egm.report.published import published
from egm.report.runs import load_runs

from ..datasets import benchmark_files as files
from .conftest import Egm

SUITE = ("eval", "--data-root", "data", "--images", "pictures", "--allow-partial", "--codec", "qwen3_vl_instruct")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    files.write_all(tmp_path / "data")
    files.write_pictures(tmp_path / "pictures")
    return tmp_path / "data"


def answers(data: Path, splits: tuple[str, ...]) -> str:
    """What a model that is always right would write, but that it answers screenshots with a box twice as large."""
    lines = []
    for split in splits:
        for sample in open_dataset(split, data=data, allow_partial=True).annotations():
            boxes = []
            for box in sample.truths or ():
                grow = (box.width / 2, box.height / 2) if split.startswith("screenspot") else (0, 0)
                corners = (box.x1 - grow[0], box.y1 - grow[1], box.x2 + grow[0], box.y2 + grow[1])
                sides = (files.WIDTH, files.HEIGHT) * 2
                boxes.append([round(1000 * value / side) for value, side in zip(corners, sides, strict=True)])
            lines.append(json.dumps([{"bbox_2d": box, "label": "it"} for box in boxes]))
    return "\n".join(lines)


def test_benchmarks_of_all_kinds_are_one_run_with_one_table(egm: Egm, data: Path, tmp_path: Path) -> None:
    (tmp_path / "right.txt").write_text(answers(data, HARD))
    outcome = egm(*SUITE, "--suite", "hard", "--script", "right.txt", "--model", "mine", "--out", "run")
    assert outcome.code == 0, outcome.err
    header, records = read_journal(tmp_path / "run")
    assert list(header.datasets) == list(HARD)
    table = outcome.out.partition("Benchmarks, %")[2]
    assert re.findall(r"^ *(\S+/\S+), (.+?) *$", table, re.MULTILINE) == [
        (split, "centre in the true box" if split == "screenspot-pro/test" else "Acc@0.5") for split in HARD
    ]
    assert len(re.findall(r"^ *mine .* 100\.00 ", table, re.MULTILINE)) == len(HARD)
    assert all(row.model in table for row in published().benchmarks if row.split in HARD)
    assert "Acc@0.5, %" not in outcome.out  # the card's table is of other splits
    screenshots = [record for record in records if record.split == "screenspot-pro/test"]
    assert all(record.iou < 0.5 for record in screenshots)  # it is the centre that counts
    report = egm("report", "run", "--format", "csv").out
    assert report.startswith('section,model,questions,%,% low,% high,remarks\n"ref-adv-s/test, Acc@0.5",')


@pytest.mark.usefixtures("small_refcoco")
def test_all_is_the_cards_table_and_that_of_the_benchmarks(egm: Egm, tmp_path: Path) -> None:
    files.write_all(tmp_path / "data")
    files.write_pictures(tmp_path / "pictures")
    for picture in list((tmp_path / "pictures").glob("*.jpg")):
        picture.rename(tmp_path / "pictures" / "train2014" / picture.name)
    outcome = egm(*SUITE, "--suite", "all", "--limit", 12, "--script", "right.txt", "--model", "mine", "--out", "run")
    assert (outcome.code, "hold no question of" in outcome.err) == (2, True)  # a choice is of all of it, or refused
    outcome = egm(*SUITE, "--suite", "all", "--script", "right.txt", "--model", "mine", "--out", "run")
    assert outcome.code == 0, outcome.err
    assert list(read_journal(tmp_path / "run")[0].datasets) == [*EVALUATION, *HARD]
    assert "Acc@0.5, %" in outcome.out
    assert "Benchmarks, %" in outcome.out
    report = egm("report", "run", "--out", "report")
    assert report.code == 0, report.err
    counts = {"accuracy": 1, "benchmarks": len(HARD), "none_and_many": 1}
    for name, count in counts.items():
        assert (tmp_path / "report" / f"{name}.csv").read_text().count("mine") == count


def test_a_question_is_not_counted_in_a_split_and_in_the_whole_of_its_splits(
    egm: Egm, data: Path, tmp_path: Path
) -> None:
    said = "ref-l4/all holds the questions of ref-l4/val too, which would count twice: name either"
    (tmp_path / "right.txt").write_text(answers(data, ("ref-l4/val",)))
    asked = (*SUITE, "--script", "right.txt", "--model", "mine")
    both = egm(*asked, "ref-l4/val", "ref-l4/all")
    assert (both.code, both.err) == (2, f"error: {said}\n")
    scored = egm("score", "right.txt", "--data", "ref-l4/all", "--data", "ref-l4/val", "--data-root", data)
    assert (scored.code, scored.err) == (2, f"error: {said}\n")
    splits = {split: open_dataset(split, data=data, allow_partial=True) for split in ("ref-l4/all", "ref-l4/val")}
    with pytest.raises(DataError, match=said):
        plan_samples(splits)
    for split in ("val", "test", "all"):  # one by one they may be asked; only parts are put together
        (tmp_path / "right.txt").write_text(answers(data, (f"ref-l4/{split}",)))
        assert egm(*asked, f"ref-l4/{split}", "--out", split).code == 0
    runs = load_runs([tmp_path / "val", tmp_path / "all", tmp_path / "test"], allow_partial=True)
    assert [list(run.split_sizes) for run in runs] == [["ref-l4/val", "ref-l4/test"], ["ref-l4/all"]]


def test_what_a_suite_lacks_is_said_at_once(egm: Egm, data: Path, tmp_path: Path) -> None:
    (tmp_path / "right.txt").write_text("[]")
    (data / "grefcoco" / "grefs(unc).json").unlink()
    (data / "ref-adv-s" / "data" / "train-00000-of-00001.parquet").unlink()
    outcome = egm(*SUITE, "--suite", "hard", "--script", "right.txt")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "lacks ref-adv-s/test, grefcoco/testA, grefcoco/testB" in outcome.err
    assert "egm data benchmarks" in outcome.err


def test_a_family_without_a_word_for_none_says_so_before_anything_is_asked(
    egm: Egm, data: Path, tmp_path: Path
) -> None:
    del data
    (tmp_path / "right.txt").write_text("[]")
    outcome = egm(*SUITE[:-1], "internvl", "groundingme/test", "--script", "right.txt", "--out", "run")
    assert (outcome.code, outcome.err.count("\n"), (tmp_path / "run" / "journal.jsonl").exists()) == (2, 1, False)
    assert "codec 'internvl' has no answer for 'nothing matches'" in outcome.err


def test_benchmarks_are_listed_with_licences_and_sources(egm: Egm) -> None:
    rows = json.loads(egm("data", "benchmarks", "--json").out)
    assert {row["split"] for row in rows} >= set(HARD)
    assert all(row["licence"] and row["get"] and row["expect"] in ("one", "any", "all") for row in rows)
    shown = egm("data", "benchmarks").out
    assert "ref-adv-s/test" in shown
    assert "hf download --repo-type dataset dddraxxx/ref-adv-s" in shown
    assert set(SUITES) == {"refcoco", "hard", "all", "synthref"}
