"""`egm codecs`, and `egm score --codec ask`: which conventions fit a file, by form alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from egm.boxes import Box
from egm.codecs import codec_names, fit_answers, get_codec
from egm.journal import read_journal

from ..backends.faulty_server import FaultyServer, say
from .conftest import Egm

SIZE = (640, 480)


def test_codecs_are_listed(egm: Egm) -> None:
    rows = json.loads(egm("codecs", "--json").out)
    assert [row["name"] for row in rows] == list(codec_names())
    gemini = next(row for row in rows if row["name"] == "gemini")
    assert (gemini["numbers"], gemini["none"], gemini["proven"]) == ("0-1000, y first", "[]", True)
    assert '"box_2d": [200, 100, 400, 300]' in gemini["example"]
    assert "[ymin, xmin, ymax, xmax]" in gemini["prompts"]["gemini"]
    shown = egm("codecs").out
    assert all(name in shown for name in codec_names())


def target(name: str) -> str:
    return get_codec(name).target("the cup", Box(64, 96, 192, 192), size=SIZE).removeprefix("</think>\n\n")


@pytest.mark.parametrize("name", codec_names())
def test_a_form_fits_its_own_family(name: str) -> None:
    fitting = fit_answers([(target(name), SIZE)] * 3)
    assert name in fitting.fitting
    assert (fitting.answers, fitting.boxed) == (3, 3)


def test_what_the_text_does_not_tell_is_said() -> None:
    assert fit_answers([(target("gemini"), SIZE)]).fitting == ("gemini",)
    assert set(fit_answers([(target("qwen2_5_vl"), SIZE)]).fitting) == {"qwen2_5_vl", "qwen3_vl", "qwen3_vl_instruct"}
    # Numbers beyond a scale tell: no truth is needed for that.
    pixels = '[{"bbox_2d": [10, 20, 1200, 900]}]'
    assert fit_answers([(target("qwen2_5_vl"), (1920, 1080)), (pixels, (1920, 1080))]).fitting == ("qwen2_5_vl",)


def test_answers_without_a_box_tell_nothing() -> None:
    fitting = fit_answers([("There is no cup.", SIZE)])
    assert (fitting.boxed, fitting.fitting) == (0, ())


def test_ask_on_a_file(egm: Egm, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    truth = {"image": "a.jpg", "phrase": "the cup", "width": 640, "height": 480}
    file.write_text("".join(json.dumps({**truth, "text": target("gemini")}) + "\n" for _ in range(4)), encoding="utf-8")
    told = egm("score", str(file), "--codec", "ask")
    assert "4 of 4 answers hold a box" in told.out
    assert "the form of every box is gemini's alone" in told.err

    mixed = [target("gemini"), target("florence2"), "There is no cup."]
    file.write_text("".join(json.dumps({**truth, "text": text}) + "\n" for text in mixed), encoding="utf-8")
    told = egm("score", str(file), "--codec", "ask")
    assert "2 of 3 answers hold a box" in told.out
    assert "no convention fits all boxes in its own form" in told.err
    (fitting,) = json.loads(egm("score", str(file), "--codec", "ask", "--json").out)
    assert {fit["codec"]: fit["own"] for fit in fitting["fits"] if fit["own"]} == {"gemini": 1, "florence2": 1}


def test_a_file_that_mixes_conventions_is_scored_by_the_declared_one_and_said_to(egm: Egm, tmp_path: Path) -> None:
    truth = {"truth": [64, 96, 192, 192], "width": 640, "height": 480}
    said = [target("gemini"), target("gemini"), target("gemini"), target("florence2"), "There is no cup."]
    rows = [{**truth, "image": f"{number}.jpg", "phrase": "it", "text": text} for number, text in enumerate(said)]
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    scored = egm("score", "mixed.jsonl", "--codec", "gemini", "--json")
    assert json.loads(scored.out)["scores"][0]["pooled"]["acc@0.5"]["value"] == 3 / 5
    assert scored.err.replace("\n", " ").strip() == (
        "note: 1 of 5 answers hold a box as codec florence2 writes it, and none to codec gemini: `egm score --codec "
        "ask` counts the conventions that a file mixes"
    )


def test_ask_needs_texts(egm: Egm, tmp_path: Path) -> None:
    file = tmp_path / "boxes.jsonl"
    file.write_text(json.dumps({"image": "a.jpg", "phrase": "it", "box": [1, 2, 3, 4]}) + "\n", encoding="utf-8")
    assert "holds no text, and a box alone has no form" in egm("score", str(file), "--codec", "ask").err


@pytest.mark.parametrize("name", ["gemini", "glm_v", "florence2", "moondream"])
def test_eval_works_for_hosted_families(egm: Egm, tmp_path: Path, name: str) -> None:
    Image.new("RGB", SIZE).save(tmp_path / "a.jpg")
    row = {"image": "a.jpg", "sent": "the cup", "bbox": [64, 96, 192, 192], "width": 640, "height": 480}
    (tmp_path / "data.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with FaultyServer({"": [say(target(name))]}) as server:
        told = egm("eval", "data.jsonl", "--images", tmp_path, "--server", server.url, "--codec", name, "--out", "run")
    assert told.code == 0, told.err
    _, (record,) = read_journal(tmp_path / "run")
    assert (record.failure, record.iou > 0.75) == (None, True)


@pytest.mark.parametrize("name", codec_names())
def test_score_works_for_every_family(egm: Egm, tmp_path: Path, name: str) -> None:
    file = tmp_path / "answers.jsonl"
    row = {"image": "a.jpg", "phrase": "the cup", "width": 640, "height": 480, "truth": [64, 96, 192, 192]}
    file.write_text(json.dumps({**row, "text": target(name)}) + "\n", encoding="utf-8")
    (score,) = json.loads(egm("score", str(file), "--codec", name, "--json").out)["scores"]
    assert (score["rows"], score["no_box"]) == (1, {})
    assert score["pooled"]["acc@0.75"]["value"] == 1
