"""`--expect`: none and many on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from egm.codecs import get_codec
from egm.codecs.parsing.reading import MAX_BOXES
from egm.datasets import open_dataset
from egm.datasets.synthetic import SynthRef
from egm.types import Sample

from ..backends.faulty_server import FaultyServer, say
from .conftest import Egm

CODEC = get_codec("qwen3_vl")
TWO = '</think> [{"bbox_2d": [0, 0, 500, 500]}, {"bbox_2d": [500, 500, 1000, 1000]}]'
NONE = "</think> []"


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (40, 20), "teal").save(tmp_path / "a.png")
    return "a.png"


def test_ground_all_and_none(egm: Egm, picture: str) -> None:
    with FaultyServer({"cups": [say(TWO)], "dog": [say(NONE)]}) as server:
        ask = ("ground", picture, "the cups", "the dog", "--server", server.url)
        every = egm(*ask, "--expect", "all")
        assert (every.code, every.err) == (0, "")
        shown = [line.split("(")[0].split() for line in every.out.splitlines()]
        assert shown[1] == ["box", "0.0", "0.0", "20.0", "10.0"]
        assert shown[2] == ["box", "20.0", "10.0", "40.0", "20.0"]
        assert shown[4] == ["nothing", "matches"]
        rows = [json.loads(line) for line in egm(*ask, "--expect", "any", "--json").out.splitlines()]
        assert [(row["expect"], row["failure"], len(row["boxes"])) for row in rows] == [
            ("any", None, 2),
            ("any", None, 0),
        ]
        usual = egm(*ask)
        assert usual.code == 1
        assert "no box: the model says that there is no such thing" in usual.out
        texts = [request["messages"][0]["content"][-1]["text"] for request in server.asked]
        assert any("Locate every object" in text for text in texts)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--expect", "many"), "unknown --expect 'many': "),
        (("--expect", "any", "--codec", "internvl"), "codec 'internvl' has no answer for 'nothing matches'"),
        (("--expect", "all", "--cut-tail"), "an answer whose tail is cut ends behind its first box"),
    ],
)
def test_what_cannot_be_asked_is_one_line(egm: Egm, picture: str, options: tuple[str, ...], said: str) -> None:
    with FaultyServer({"": [say(NONE)]}) as server:
        outcome = egm("ground", picture, "the cup", "--server", server.url, *options)
        assert outcome.code == 2
        assert outcome.err.startswith(f"error: {said}")
        assert outcome.err.count("\n") == 1
        assert not server.asked


def answers(samples: list[Sample]) -> str:
    lines = []
    for sample in samples:
        assert sample.truths is not None
        assert sample.size is not None
        lines.append(CODEC.target(sample.phrase, sample.truths, size=sample.size).replace("\n", r"\n"))
    return "\n".join(lines)


@pytest.mark.parametrize("split", ["test-none", "test-all"])
def test_synthref_is_evaluated_scored_and_shown(egm: Egm, tmp_path: Path, split: str) -> None:
    samples = list(SynthRef(split, scenes=6))
    (tmp_path / "script.txt").write_text(answers(samples))
    outcome = egm("eval", f"synthref/{split}", "--scenes", 6, "--script", "script.txt", "--out", "run")
    assert (outcome.code, outcome.err) == (0, "")
    nothing = sum(not sample.truths for sample in samples)
    told = f"none and many, of {len(samples)} ({nothing} match nothing): F1@0.5 100.00, rejection accuracy 100.00"
    assert told in outcome.out
    score = egm("score", "run")
    assert (score.code, score.err) == (0, "")
    assert "rejection accuracy (N-acc)" in score.out
    refused = egm("score", "run", "--expect", "any")
    assert (refused.code, refused.err.startswith("error: a journal says how many boxes")) == (2, True)
    shown = egm("report", "run", "--gallery", "gallery.html")
    assert (shown.code, shown.err) == (0, "")
    assert "rejection accuracy (N-acc)" in shown.out.partition("none and many, %")[2]
    page = (tmp_path / "gallery.html").read_text()
    assert page.count("<dt>truth</dt><dd>nothing matches") == page.count("<dt>box</dt><dd>nothing matches") == nothing
    assert page.count("asked for</span>") == len(samples)


def test_one_box_may_be_asked_for_as_if_there_might_be_none(egm: Egm, tmp_path: Path) -> None:
    assert egm("data", "synthetic", "--split", "test-simple", "--scenes", 3, "--out", "data").code == 0
    count = len((tmp_path / "data/test-simple.jsonl").read_text().splitlines())
    (tmp_path / "script.txt").write_text("\n".join(["</think> []"] * count))
    ask = ("eval", "data/test-simple.jsonl", "--script", "script.txt")
    assert egm(*ask, "--out", "usual").code == 0
    outcome = egm(*ask, "--out", "run", "--expect", "any")
    assert (outcome.code, "false rejections 100.00" in outcome.out) == (0, True)
    assert "no box: refused" not in outcome.out
    assert "no box: refused" in egm("score", "usual", "--data", "data/test-simple.jsonl").out
    score = egm("score", "run", "--data", "data/test-simple.jsonl")
    assert (score.code, score.err) == (0, "")
    assert '"nothing matches", where something does' in score.out
    compared = egm("score", "usual", "run")
    assert (compared.code, "--expect one in the first file and with --expect any" in compared.err) == (2, True)


def test_rows_of_none_and_many_go_out_and_come_back(egm: Egm, tmp_path: Path) -> None:
    assert egm("data", "synthetic", "--split", "test-all", "--scenes", 5, "--out", "data").code == 0
    read = open_dataset(tmp_path / "data/test-all.jsonl")
    made = list(SynthRef("test-all", scenes=5))
    assert [(s.phrase, s.expect, s.truths) for s in read] == [(s.phrase, s.expect, s.truths) for s in made]
    assert egm("data", "check", "data/test-all.jsonl").code == 0
    rows = [json.loads(line) for line in (tmp_path / "data/test-all.jsonl").read_text().splitlines()]
    for bad, said in (
        ({"expect": "many"}, "expect 'many' is none of one, any, all"),
        ({"bboxes": 3, "bbox": None}, "bboxes must be a list of boxes"),
        ({"bboxes": [[1, 2]], "bbox": None}, "bboxes [1, 2] is not x1, y1, x2, y2"),
    ):
        (tmp_path / "bad.jsonl").write_text(json.dumps({**rows[0], **bad}) + "\n")
        outcome = egm("data", "check", "bad.jsonl")
        assert said in outcome.out + outcome.err
    alone = {key: value for key, value in rows[0].items() if key != "bbox"}
    (tmp_path / "bad.jsonl").write_text(json.dumps({**alone, "bboxes": None}) + "\n")
    outcome = egm("score", "predictions.jsonl", "--data", "bad.jsonl")
    assert outcome.code == 2
    assert "bad.jsonl line 1: bboxes is null: give a list of boxes, empty if nothing matches" in outcome.err


def test_anybodys_predictions_of_sets(egm: Egm, tmp_path: Path) -> None:
    rows = [
        {"id": "1", "image": "a.jpg", "sent": "cups", "bboxes": [[0, 0, 10, 10], [20, 20, 30, 30]], "expect": "all"},
        {"id": "2", "image": "a.jpg", "sent": "dog", "bboxes": [], "expect": "any"},
        {"id": "3", "image": "a.jpg", "sent": "cat", "bboxes": [], "expect": "any"},
    ]
    said = [
        {"id": "1", "boxes": [[20, 20, 30, 30], [0, 0, 10, 10]], "confidences": [0.9, 0.4]},
        {"id": "2", "box": None},
        {"id": "3", "boxes": [[0, 0, 10, 10]], "confidences": [0.1]},
    ]
    for name, lines in (("data.jsonl", rows), ("said.jsonl", said)):
        full = [{"width": 40, "height": 40, **row} for row in lines]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in full))
    outcome = egm("score", "said.jsonl", "--data", "data.jsonl", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    [score] = json.loads(outcome.out)["scores"]
    assert score["pooled"]["acc@0.5"]["value"] == pytest.approx(2 / 3)
    assert score["sets"]["estimates"]["n_acc"]["value"] == 0.5
    assert score["sets"]["average_precision"] == [1, 1]
    assert score["misses"] == {"false_alarm": 1}
    (tmp_path / "many.jsonl").write_text(json.dumps({"id": "1", "boxes": [[0, 0, 10, 10]] * 20_000}))
    outcome = egm("score", "many.jsonl", "--data", "data.jsonl", "--allow-partial", "--json")
    [score] = json.loads(outcome.out)["scores"]
    assert score["sets"]["estimates"]["precision@0.5"]["value"] == 1 / MAX_BOXES
    for bad, what in (
        ({"boxes": [[0, 0, 1, 1]], "box": [0, 0, 1, 1]}, "has box and boxes"),
        ({"boxes": [[0, 0, 1, 1]], "confidences": []}, "confidences one number for each"),
        ({"boxes": [None]}, "boxes must hold boxes alone"),
        ({"boxes": 3}, "boxes must be a list of boxes"),
    ):
        (tmp_path / "bad.jsonl").write_text(json.dumps({"id": "1", **bad}))
        refused = egm("score", "bad.jsonl", "--data", "data.jsonl", "--allow-partial")
        assert (refused.code, what in refused.err) == (2, True), refused.err
