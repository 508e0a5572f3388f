"""`egm score` on files that others could have written."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ..backends.faulty_server import FaultyServer, fail, say
from .conftest import Egm

ROWS = [
    {"image": "a.jpg", "sent": "left cup", "bbox": [0, 0, 100, 100], "width": 200, "height": 100},
    {"image": "a.jpg", "sent": "right cup", "bbox": [100, 0, 200, 100], "width": 200, "height": 100},
    {"image": "b.jpg", "sent": "dog", "bbox": [0, 0, 100, 100], "width": 200, "height": 100},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return lines(tmp_path / "data.jsonl", ROWS)


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def answers(path: Path, *boxes: list[int] | None) -> Path:
    asked = [{"image": row["image"], "phrase": row["sent"]} for row in ROWS]
    return lines(path, [{**row, "box": box} for row, box in zip(asked, boxes, strict=True)])


def test_one_file(egm: Egm, data: Path, tmp_path: Path) -> None:
    path = answers(tmp_path / "p.jsonl", [0, 0, 100, 100], [0, 0, 100, 100], None)
    outcome = egm("score", path, "--data", data)
    assert (outcome.code, outcome.err) == (0, "")
    assert "33.33" in outcome.out
    assert "clustered by 2 pictures" in outcome.out
    assert "left and right mistaken" in outcome.out
    assert "no box" in outcome.out


def test_boxes_past_the_most_that_count_are_told(egm: Egm, tmp_path: Path) -> None:
    far = [[1, 1, 2, 2]] * 1000
    rows = [
        {"id": str(n), "truth": [0, 0, 100, 100], "boxes": [[0, 0, 100, 100], *boxes]}
        for n, boxes in enumerate((far, far[1:], far[2:], []))
    ]
    outcome = egm("score", lines(tmp_path / "p.jsonl", rows), "--expect", "all")
    assert outcome.code == 0
    assert "note: 2 of 4 answers give 1,000 boxes or more (0): no more than the first 1,000 count" in outcome.err
    few = egm("score", lines(tmp_path / "q.jsonl", rows[2:]), "--expect", "all")
    assert (few.code, few.err) == (0, "")
    assert "What the texts of predictions are taken for" in " ".join(egm("score", "--help").out.split())


def test_part_of_the_samples_is_called_so(egm: Egm, data: Path, tmp_path: Path) -> None:
    whole = answers(tmp_path / "p.jsonl", [0, 0, 100, 100], [0, 0, 100, 100], None)
    part = lines(tmp_path / "q.jsonl", list(map(json.loads, whole.read_text().splitlines()))[:2])
    other = lines(tmp_path / "other.jsonl", ROWS[2:])
    command = ("score", part, "--data", data, "--allow-partial")
    assert egm(*command).out.count("2 of 3") == 2  # and by bootstrap
    assert "2 of 4" in egm(*command, "--data", other).out
    assert json.loads(egm(*command, "--json").out)["scores"][0]["samples"] == 3
    assert " of 3" not in egm("score", whole, "--data", data).out
    (tmp_path / "script.txt").write_text("</think> [0, 0, 500, 500]")
    assert egm("eval", "synthref/val", "--scenes", 1, "--script", "script.txt", "--out", "run").code == 0
    journal = tmp_path / "run" / "journal.jsonl"
    header, first, *rest = journal.read_text().splitlines(keepends=True)
    journal.write_text(header + first)
    assert f"1 of {1 + len(rest)}" in egm("score", "run", "--allow-partial").out


def test_two_files_as_json(egm: Egm, data: Path, tmp_path: Path) -> None:
    first = answers(tmp_path / "a.jsonl", [0, 0, 100, 100], [0, 0, 100, 100], None)
    second = answers(tmp_path / "b.jsonl", [0, 0, 100, 100], [100, 0, 200, 100], [0, 0, 100, 50])
    outcome = egm("score", first, second, "--data", data, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    result = json.loads(outcome.out)
    assert [score["pooled"]["acc@0.5"]["value"] for score in result["scores"]] == pytest.approx([1 / 3, 1.0])
    assert [score["predictions"] for score in result["scores"]] == [str(first), str(second)]
    assert result["scores"][0]["misses"] == {"no_box": 1, "mirrored": 1}
    assert result["scores"][0]["splits"].keys() == {"data"}
    mcnemar = result["comparison"]["mcnemar"]
    assert (mcnemar["only_a"], mcnemar["only_b"], mcnemar["both"], mcnemar["p_value"]) == (0, 2, 1, 0.5)
    assert egm("score", first, second, "--data", data, "--json").out == outcome.out  # the bootstrap has a seed
    said = egm("score", first, second, "--data", data).out
    assert "B minus A" in said
    # Three rows, two pictures: nothing is decided, in words, and each interval and test says so.
    assert result["comparison"]["accuracy"]["p_value"] is None
    assert said.count("not decided") == 3
    assert "not decided: with 2 pictures all may lie on one side by chance" in said
    assert "decides no more than the above" in said


def test_what_was_asked_is_named_once(egm: Egm, data: Path, tmp_path: Path) -> None:
    first = answers(tmp_path / "a.jsonl", [0, 0, 100, 100], [0, 0, 100, 100], None)
    (tmp_path / "other").mkdir()
    same = tmp_path / "other" / data.name
    same.write_bytes(data.read_bytes())
    for again, said in (
        (data, "is given twice: name each dataset once"),
        (same, "is called 'data', as another --data is"),
    ):
        outcome = egm("score", first, "--data", data, "--data", again)
        assert (outcome.code, outcome.out) == (2, "")
        assert said in outcome.err


def test_texts_are_read_as_declared(egm: Egm, data: Path, tmp_path: Path) -> None:
    text = 'Here: {"bbox_2d": [0, 0, 500, 1000]}'
    path = lines(tmp_path / "p.jsonl", [{"image": "b.jpg", "phrase": "dog", "text": text}])
    rest = ("--data", data, "--allow-partial", "--json")

    def iou(*options: str) -> float:
        return float(json.loads(egm("score", path, *rest, *options).out)["scores"][0]["pooled"]["mean_iou"]["value"])

    assert iou("--codec", "qwen3_vl_instruct") == 1.0
    assert "--codec qwen3_vl_instruct asks and reads it" in egm("score", path, *rest, "--codec", "qwen3_vl").err
    assert iou("--codec", "qwen3_vl") == 0.0  # the thinking never ended
    assert iou("--codec", "internvl") == 1.0
    # In pixels it lies far outside the picture.
    assert iou("--codec", "qwen2_5_vl", "--pixels-of", "original") == 0.0


@pytest.mark.parametrize(
    ("kinds", "miss"),
    [
        (("cup", "cup"), "wrong_same_kind"),
        (("cup", "dog"), "wrong_object"),
        ((None, None), "wrong_object"),
    ],
)
def test_the_kind_of_another_object_is_that_of_the_annotations(
    egm: Egm, tmp_path: Path, kinds: tuple[str | None, str | None], miss: str
) -> None:
    rows = [
        {**row, "sent": sent} | ({"category": kind} if kind else {})
        for row, sent, kind in zip(ROWS, ("red one", "blue one"), kinds, strict=False)
    ]
    data = lines(tmp_path / "data.jsonl", rows)
    asked = [{"image": row["image"], "phrase": row["sent"], "box": [0, 0, 100, 100]} for row in rows]
    outcome = egm("score", lines(tmp_path / "p.jsonl", asked), "--data", data, "--json")
    score = json.loads(outcome.out)["scores"][0]
    assert score["misses"] == {miss: 1}
    assert list(score["groups"].get("category", {})) == sorted({kind for kind in kinds if kind})


def test_lmms_evals_samples_are_scored_against_the_file_that_they_are_about(egm: Egm, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (200, 100)).save(stream, "PNG")
    row = {"question_id": "1", "answer": ["left cup", "cup"], "bbox": [0.0, 0.0, 100.0, 100.0]}
    row |= {"file_name": "COCO_train2014_000000000005_1.jpg", "image": {"bytes": stream.getvalue()}}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "val.parquet")
    answer = ['{"bbox_2d": [0, 0, 500, 1000]}']
    logged = [
        {"doc_id": number, "doc": {"answer": phrase, "file_name": row["file_name"]}, "filtered_resps": answer}
        for number, phrase in enumerate(row["answer"])
    ]
    path = lines(tmp_path / "samples.jsonl", logged)
    options = ("--codec", "qwen3_vl_instruct", "--json")
    # Its rows say no size, without which nothing on the 0-1000 scale can be read: the pictures do.
    outcome = egm("score", path, "--data", tmp_path / "val.parquet", *options)
    assert (outcome.code, outcome.err) == (0, "")
    pooled = json.loads(outcome.out)["scores"][0]["pooled"]["mean_iou"]
    assert (pooled["value"], pooled["rows"], pooled["clusters"]) == (1.0, 2, 1)


def test_the_size_may_stand_in_the_row(egm: Egm, tmp_path: Path) -> None:
    bare = {"image": "b.jpg", "sent": "dog", "bbox": [0, 0, 100, 100]}
    data = lines(tmp_path / "bare.jsonl", [bare])
    said = {"image": "b.jpg", "phrase": "dog", "text": '{"bbox_2d": [0, 0, 500, 1000]}'}
    options = ("--data", data, "--codec", "qwen3_vl_instruct", "--json")
    outcome = egm("score", lines(tmp_path / "p.jsonl", [{**said, "width": 200, "height": 100}]), *options)
    assert json.loads(outcome.out)["scores"][0]["pooled"]["mean_iou"]["value"] == 1.0
    outcome = egm("score", lines(tmp_path / "p.jsonl", [said]), *options)
    assert "size of its picture is not known: give a dataset that says it (--data), or width and" in outcome.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "carries no true box: name the dataset with --data"),
        (("--data", "data.jsonl"), "answers 1 of 3 samples: --allow-partial"),
        (("--data", "data.jsonl", "--allow-partial"), "say how to read it with --codec (egm codecs lists them"),
        (("--codec", "qwen3"), "unknown codec 'qwen3'"),
        (("--codec", "qwen2_5_vl", "--pixels-of", "mine"), "must be seen or original"),
        (("--codec", "qwen3_vl", "--pixels-of", "original"), "needs --codec qwen2_5_vl"),
        (("--pixels-of", "original"), "needs --codec qwen2_5_vl"),
        (("--no-thinking",), "no --thinking/--no-thinking here any more: --codec qwen3_vl is read after thinking"),
        (("--thinking",), "--codec qwen3_vl_instruct without"),
        (("--data", "nothing.jsonl"), "nothing.jsonl"),
        (("--judge-model", "tiny"), "give its server with --judge URL"),
        (("p.jsonl", "p.jsonl"), "give one file of predictions, or two"),
    ],
)
def test_bad_input_is_one_line(egm: Egm, data: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    lines(tmp_path / "p.jsonl", [{"image": "b.jpg", "phrase": "dog", "text": "[0, 0, 1, 1]"}])
    outcome = egm("score", "p.jsonl", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1


def test_a_missing_file_is_one_line(egm: Egm) -> None:
    outcome = egm("score", "nothing.jsonl")
    assert (outcome.code, outcome.err) == (2, "error: there are no predictions at nothing.jsonl: check the path\n")


def test_names_cannot_steer_the_terminal(egm: Egm, data: Path, tmp_path: Path) -> None:
    path = answers(tmp_path / "[bold]\x1b[31m.jsonl", [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1])
    other = lines(tmp_path / "x\x1b[31m[red].jsonl", ROWS)
    outcome = egm("score", path, "--data", other)
    assert outcome.code == 0
    assert "\x1b" not in outcome.out
    assert "[red]" in outcome.out
    assert "[bold]" in outcome.out


def test_a_judge_beside_the_rules(egm: Egm, data: Path, tmp_path: Path) -> None:
    path = answers(tmp_path / "p.jsonl", [0, 0, 100, 100], [0, 0, 100, 100], None)
    script = {"right cup": [say('{"miss": "wrong_same_kind", "phrase": "complex"}')], "dog": [fail(400, "no dogs")]}
    with FaultyServer(script) as server:
        outcome = egm("score", path, "--data", data, "--judge", server.url)
        assert (outcome.code, outcome.err) == (0, "")
        assert "judge tiny: 1 judged, 0 unreadable, 1 failed" in outcome.out
        assert "complex phrases by judge" in outcome.out
        asked = ("--judge", server.url, "--judge-model", "big", "--json")
        result = json.loads(egm("score", path, "--data", data, *asked).out)["scores"][0]["judge"]
        assert {query["model"] for query in server.asked} == {"tiny", "big"}
    assert result["confusion"] == {"mirrored": {"wrong_same_kind": 1}}
    assert (result["model"], result["judged"], result["failed"]) == ("big", 1, 1)
    assert (result["agreement"]["value"], result["complex_by_judge"]["value"]) == (0.0, 1.0)
    assert "judge" not in json.loads(egm("score", path, "--data", data, "--json").out)["scores"][0]


def test_a_codec_is_for_texts_and_not_for_journals_alone(egm: Egm, tmp_path: Path) -> None:
    (tmp_path / "script.txt").write_text("</think> [0, 0, 500, 500]")
    assert egm("eval", "synthref/val", "--scenes", 1, "--script", "script.txt", "--out", "run").code == 0
    alone = egm("score", "run", "--codec", "internvl")
    assert (alone.code, "leave --codec out" in alone.err) == (2, True)
    records = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()[1:]]
    keys = ("id", "image", "phrase", "truth", "size", "text")
    others = lines(tmp_path / "p.jsonl", [{key: record[key] for key in keys} for record in records])
    both = egm("score", "run", others, "--codec", "qwen3_vl", "--data", "synthref/val", "--allow-partial", "--json")
    assert both.err == ""
    first, second = json.loads(both.out)["scores"]
    assert first["pooled"]["mean_iou"]["value"] == second["pooled"]["mean_iou"]["value"]


def test_pictures_that_were_in_memory_are_found_in_the_whole_split(egm: Egm, tmp_path: Path) -> None:
    """A part of SynthRef is drawn in memory, and its journal names no files, as the whole split does."""
    (tmp_path / "script.txt").write_text("</think> [0, 0, 500, 500]")
    assert egm("eval", "synthref/val", "--scenes", 3, "--script", "script.txt", "--out", "run").code == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()[1:]]
    keys = ("id", "image", "phrase", "truth", "text")
    rows = lines(tmp_path / "p.jsonl", [{key: record[key] for key in keys} for record in records])
    journal, text = (
        egm("score", path, "--data", "synthref/val", "--allow-partial", "--json", *options)
        for path, options in (("run", ()), (rows, ("--codec", "qwen3_vl")))
    )
    assert (journal.code, journal.err, text.err) == (0, "", "")
    first, second = (json.loads(each.out)["scores"][0] for each in (journal, text))
    alone = json.loads(egm("score", "run", "--json").out)["scores"][0]
    assert first["pooled"] == second["pooled"] == alone["pooled"]
    assert first["misses"] == second["misses"] == alone["misses"]


def test_a_judge_that_must_be_named_is_named_by_its_own_option(egm: Egm, data: Path, tmp_path: Path) -> None:
    with FaultyServer({}, models=("a", "b")) as server:
        path = answers(tmp_path / "p.jsonl", None, None, None)
        outcome = egm("score", path, "--data", data, "--judge", server.url)
    assert outcome.code == 2
    assert "name one, as --judge-model does: a, b" in outcome.err
