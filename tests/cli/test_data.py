from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from egm.datasets.jsonl import JsonlDataset
from egm.datasets.synthetic import SynthRef

from .conftest import Egm


def test_rows_that_other_tools_read(egm: Egm, tmp_path: Path) -> None:
    outcome = egm("data", "synthetic", "--split", "test-amodal", "--scenes", 3, "--seed", 1, "--out", "set")
    assert (outcome.code, outcome.out, outcome.err) == (0, "set/test-amodal.jsonl\n", "")
    rows = [json.loads(line) for line in (tmp_path / "set" / "test-amodal.jsonl").read_text().splitlines()]
    samples = list(SynthRef("test-amodal", seed=1, scenes=3))
    assert len(rows) == len(samples) > 3
    for row, sample in zip(rows, samples, strict=True):
        assert sample.box is not None
        assert (row["id"], row["sent"], row["rationale"]) == (sample.id, sample.phrase, sample.rationale)
        assert (row["bbox"], row["amodal"]) == (list(sample.box), True)
        assert {"kind", "complexity"} <= row.keys()
        with Image.open(tmp_path / "set" / row["image"]) as image:
            assert image.size == (row["width"], row["height"])
            assert image.text == {"Software": "SynthRef"}
            assert image.tobytes() == sample.image.tobytes()  # type: ignore[union-attr]


def test_egm_reads_its_own_rows(egm: Egm, tmp_path: Path) -> None:
    egm("data", "synthetic", "--scenes", 2, "--out", tmp_path)
    read = list(JsonlDataset(tmp_path / "val.jsonl"))
    made = list(SynthRef("val", scenes=2))
    assert [(s.id, s.phrase, s.box, s.size, s.amodal, s.rationale) for s in read] == [
        (s.id, s.phrase, s.box, s.size, s.amodal, s.rationale) for s in made
    ]


def test_the_same_bytes_again(egm: Egm, tmp_path: Path) -> None:
    for folder in ("one", "two", "two"):
        assert egm("data", "synthetic", "--split", "train", "--scenes", 4, "--out", folder).code == 0
    one, two = ((tmp_path / folder / "train.jsonl").read_bytes() for folder in ("one", "two"))
    assert one == two
    assert b"\r" not in one
    assert not list(tmp_path.rglob("*.tmp"))


def test_more_scenes_of_the_same_set_take_the_place_of_fewer(egm: Egm, tmp_path: Path) -> None:
    # Some scenes of test-amodal have no question, and so no row.
    for scenes in (4, 4, 6):
        outcome = egm("data", "synthetic", "--split", "test-amodal", "--seed", 1, "--scenes", scenes, "--out", tmp_path)
        assert outcome.code == 0
    assert len(JsonlDataset(tmp_path / "test-amodal.jsonl")) == len(list(SynthRef("test-amodal", seed=1, scenes=6)))


def test_splits_live_side_by_side_but_not_over_each_other(egm: Egm, tmp_path: Path) -> None:
    assert egm("data", "synthetic", "--scenes", 2, "--out", "set").code == 0
    assert egm("data", "synthetic", "--split", "test-simple", "--scenes", 2, "--out", "set").code == 0
    before = (tmp_path / "set" / "val.jsonl").read_bytes()
    for options in (["--seed", 1], ["--scenes", 1]):
        outcome = egm("data", "synthetic", "--scenes", 2, "--out", "set", *options)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err == "error: 'set/val.jsonl' holds other rows: give another --out, or delete it\n"
    assert (tmp_path / "set" / "val.jsonl").read_bytes() == before
    (tmp_path / "set" / "train.jsonl").write_text("somebody's own notes")
    assert egm("data", "synthetic", "--split", "train", "--scenes", 1, "--out", "set").code == 2
    assert (tmp_path / "set" / "train.jsonl").read_text() == "somebody's own notes"
