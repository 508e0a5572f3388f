from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from egm.boxes import Box
from egm.datasets import EVALUATION, open_dataset

from .conftest import Egm

ROW = {"image": "a.png", "sent": "the cup", "bbox": [1, 2, 30, 40], "height": 50, "width": 60}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_sound_dataset(egm: Egm, tmp_path: Path) -> None:
    Image.new("RGB", (60, 50)).save(tmp_path / "a.png")
    write(tmp_path / "rows.jsonl", ROW)
    outcome = egm("data", "check", "rows.jsonl", "--images", ".", "--no-leaks")
    assert (outcome.code, outcome.err) == (0, "")
    assert "1 samples, no problems" in outcome.out


def test_problems_are_counted_and_the_code_is_1(egm: Egm, tmp_path: Path) -> None:
    rows = [ROW, ROW, ROW | {"image": "[red].png", "bbox": [1, 2, 70, 40]}]
    write(tmp_path / "rows.jsonl", *rows)
    outcome = egm("data", "check", "rows.jsonl", "--images", ".", "--no-leaks")
    assert outcome.code == 1
    for words in ("problems: 4", "missing image", "box outside", "duplicate", "rows/3", "[red].png"):
        assert words in outcome.out.replace("\n", "")


def test_malformed_rows_are_reported_and_the_others_checked(egm: Egm, tmp_path: Path) -> None:
    rows = [ROW | {"bbox": [1]}, ROW, ROW | {"sent": "far", "bbox": [1, 2, 70, 40]}]
    path = write(tmp_path / "rows.jsonl", *rows)
    with path.open("ab") as file:
        file.write(b"{\n" * 30 + b'"\xff"\n' + json.dumps(ROW | {"image": "../a.png"}).encode() + b"\n")
    outcome = egm("data", "check", "rows.jsonl")
    assert outcome.code == 1
    assert "rows: 2 samples, problems: 34" in outcome.out
    assert "rows.jsonl line 1" in outcome.out
    assert "bbox [1] is not x1, y1, x2, y2" in outcome.out
    assert "box outside" in outcome.out
    assert outcome.out.count("is not JSON") == 9  # half of what is shown at most, as there are two kinds
    assert "23 more" in outcome.out


def test_where_no_row_is_left_the_malformed_are_reported(egm: Egm, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", ROW | {"bbox": [1]}, ROW | {"sent": " "})
    outcome = egm("data", "check", "rows.jsonl")
    assert outcome.code == 1
    assert "rows.jsonl: 0 samples, problems: 2" in outcome.out
    assert "nothing else was looked at: dataset rows holds no rows" in outcome.err


def test_a_published_split_with_malformed_rows(egm: Egm, tmp_path: Path) -> None:
    row = ROW | {"image": "COCO_train2014_000000000001.jpg"}
    write(tmp_path / "refcoco_val.jsonl", row, row | {"bbox": None, "width": 0})
    outcome = egm("data", "check", "refcoco/val", "--data-root", ".")
    assert outcome.code == 1
    assert "refcoco/val: 1 samples, problems: 1" in outcome.out
    assert "refcoco_val.jsonl line 2" in outcome.out


def test_what_was_not_looked_at_is_said(egm: Egm, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", ROW)
    assert "leaks" not in egm("data", "check", "rows.jsonl").err  # whose picture no split names
    write(tmp_path / "coco.jsonl", ROW | {"image": "COCO_train2014_000000000001.jpg"})
    outcome = egm("data", "check", "coco.jsonl")
    assert outcome.code == 0
    assert "leaks were not looked for: no annotations of refcoco/val" in outcome.err
    assert "images were not opened, as none is where egm eval would look: give --images" in outcome.err
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (30, 25)).save(tmp_path / "sub" / "a.png")
    write(tmp_path / "sub" / "rows.jsonl", ROW)
    outcome = egm("data", "check", "sub/rows.jsonl", "--no-leaks")
    assert (outcome.code, outcome.err) == (1, "")
    assert "the row says 60 x 50, the picture is 30 x 25" in " ".join(outcome.out.split())


def test_published_splits_keep_their_repeats_and_it_is_said(egm: Egm, tmp_path: Path) -> None:
    row = ROW | {"image": "COCO_train2014_000000000001.jpg"}
    write(tmp_path / "refcoco_val.jsonl", row, row)
    outcome = egm("data", "check", "refcoco/val", "--data-root", ".", "--allow-partial")
    assert (outcome.code, "2 samples, no problems" in outcome.out) == (0, True)
    assert "repeats were not looked for" in outcome.err


def test_leaks_into_the_evaluation_splits(egm: Egm, tmp_path: Path) -> None:
    for number, name in enumerate(EVALUATION):
        row = {"image": f"COCO_train2014_{number:012d}.jpg", "sent": "x", "bbox": [1, 2, 3, 4]}
        write(tmp_path / f"{name.replace('/', '_')}.jsonl", row)
    write(tmp_path / "rows.jsonl", ROW | {"image": "coco_flip/COCO_train2014_000000000003.jpg"})
    outcome = egm("data", "check", "rows.jsonl", "--data-root", ".", "--allow-partial")
    assert outcome.code == 1
    assert EVALUATION[3] in outcome.out
    assert "problems: 1" in outcome.out


def test_a_list_holds_every_problem(egm: Egm, tmp_path: Path) -> None:
    rows = [ROW | {"sent": str(number), "bbox": [1, 2, 70, 40]} for number in range(50)]
    write(tmp_path / "rows.jsonl", *rows)
    cut = egm("data", "check", "rows.jsonl", "--no-leaks")
    assert "30 more: --list FILE writes all" in cut.out
    outcome = egm("data", "check", "rows.jsonl", "--no-leaks", "--list", "all.txt")
    assert (outcome.code, "30 more: all are in all.txt" in outcome.out) == (1, True)
    lines = (tmp_path / "all.txt").read_text().splitlines()
    assert lines == [f"box outside\trows/{number}\t1, 2, 70, 40 in 60 x 50" for number in range(1, 51)]
    again = egm("data", "check", "rows.jsonl", "--list", "rows.jsonl")
    assert (again.code, "is there already" in again.err) == (2, True)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 50


def test_bad_input_is_one_line(egm: Egm, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", ROW | {"bbox": [1]})
    write(tmp_path / "good.jsonl", ROW)
    (tmp_path / "half.json").write_text("[{", encoding="utf-8")
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    for arguments, says in (
        (["convert", "rows.jsonl", "out.jsonl"], "rows.jsonl line 1: bbox [1] is not"),
        (["check", "half.json"], "half.json is not JSON"),
        (["check", "broken.zip"], "broken.zip cannot be read"),
        (["check", "refcoco/vall"], "did you mean 'refcoco/val'"),
        (["check", "refcoco/val"], "no annotations of refcoco/val"),
        (["check", "good.jsonl", "--images", "none"], "there is no folder 'none'"),
        (["convert", "good.jsonl", "out.csv"], "does not say which format"),
        (["convert", "good.jsonl", "rows.jsonl"], "is there already"),
        (["convert", "good.jsonl", "x.json", "--format", "csv"], "there is no format 'csv' to write: "),
        (["convert", "good.jsonl", "x.json", "--format", "label_studio"], "did you mean 'label-studio'?"),
    ):
        outcome = egm("data", *arguments)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith("error: ")
        assert says in outcome.err
        assert outcome.err.count("\n") == 1


def test_signs_of_pixels_on_the_0_1000_scale_are_noted_and_are_no_problem(egm: Egm, tmp_path: Path) -> None:
    answer = "At [30, 25, 60, 50].</think><box>[500, 500, 1000, 1000]</box>"
    turns = [{"from": "human", "value": "Locate a cup, output its bbox coordinates using JSON format."}]
    row = {"image": "a.png", "width": 60, "height": 50, "conversations": [*turns, {"from": "gpt", "value": answer}]}
    write(tmp_path / "rows.jsonl", row)
    outcome = egm("data", "check", "rows.jsonl", "--no-leaks")
    assert outcome.code == 0
    assert "note: in 1 rows (rows/1) the rationale gives the answer's box on another scale" in outcome.err


def test_convert(egm: Egm, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", ROW)
    outcome = egm("data", "convert", "rows.jsonl", "out.parquet")
    assert (outcome.code, "pictures of rows are not there" in outcome.err) == (2, True)
    Image.new("RGB", (60, 50)).save(tmp_path / "a.png")
    for name in ("out.json", "out.parquet", "again.jsonl"):
        outcome = egm("data", "convert", "rows.jsonl", name)
        assert (outcome.code, outcome.out, outcome.err) == (0, f"{name}\n", "")
        [sample] = open_dataset(tmp_path / name, images=tmp_path)
        assert (sample.phrase, sample.image) == ("the cup", tmp_path.resolve() / "a.png")
    assert egm("data", "convert", "rows.jsonl", "out.json", "--force").code == 0
    assert egm("data", "convert", "rows.jsonl", "out.parquet", "--force", "--codec", "internvl").code == 0
    [row] = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert row["prompt"][0]["content"].endswith("<ref>the cup</ref>")
    refused = egm("data", "convert", "rows.jsonl", "x.json", "--codec", "internvl")
    assert "--codec is for formats that hold questions" in refused.err


def test_conversations_out_and_in_again(egm: Egm, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", ROW)
    for tool in ("qwen-vl-finetune", "llama-factory", "ms-swift"):
        converted = egm("data", "convert", "rows.jsonl", f"{tool}.jsonl", "--format", tool, "--codec", "internvl")
        assert (converted.code, converted.err) == (0, "")
        [row] = [json.loads(line) for line in (tmp_path / f"{tool}.jsonl").read_text().splitlines()]
        assert row["codec"] == "internvl"
        [sample] = open_dataset(tmp_path / f"{tool}.jsonl")
        assert (sample.phrase, sample.box) == (ROW["sent"], Box(*ROW["bbox"]))
        bare = {name: row[name] for name in ("image", "images", "conversations", "messages", "width") if name in row}
        write(tmp_path / "bare.jsonl", bare | {"height": row["height"]})
        if tool != "qwen-vl-finetune":
            refused = egm("data", "check", "bare.jsonl", "--no-leaks")
            assert (refused.code, "does not say in whose" in refused.out.replace("\n", " ")) == (1, True)
            assert egm("data", "check", "bare.jsonl", "--no-leaks", "--from-codec", "internvl").code == 0


def test_convert_saves_pictures_that_lie_inside_a_file(egm: Egm, tmp_path: Path) -> None:
    outcome = egm("data", "convert", "rows.jsonl", "out.jsonl", "--pictures", "p", "--images", ".")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "two folders of pictures" in outcome.err
    write(tmp_path / "rows.jsonl", ROW)
    Image.new("RGB", (60, 50)).save(tmp_path / "a.png")
    assert "are files already" in egm("data", "convert", "rows.jsonl", "out.jsonl", "--pictures", "p").err
    row = {"question_id": "1", "image": {"bytes": (tmp_path / "a.png").read_bytes()}, "answer": ["cup"]}
    row |= {"bbox": [0.0, 0.0, 5.0, 5.0], "file_name": "b.png"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "val.parquet")
    outcome = egm("data", "convert", "val.parquet", "p/out.jsonl")
    assert (outcome.code, "--pictures DIR" in outcome.err) == (2, True)
    outcome = egm("data", "convert", "val.parquet", "p/out.jsonl", "--pictures", "p")
    assert (outcome.code, outcome.out, outcome.err) == (0, "p/out.jsonl\n", "")
    assert egm("data", "check", "p/out.jsonl", "--images", "p", "--no-leaks").code == 0


def test_convert_writes_mirrored_copies(egm: Egm, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture = Image.new("RGB", (60, 50))
    picture.paste((250, 0, 0), (1, 2, 30, 40))
    picture.save(tmp_path / "in" / "a.jpg", quality=100, subsampling=0)
    bare = {key: ROW[key] for key in ("image", "bbox")} | {"image": "a.jpg"}
    rows = [{**ROW, **bare, "sent": "left cup"}, {**bare, "sent": "right-most mug"}, {**bare, "sent": "at 2 o'clock"}]
    write(tmp_path / "rows.jsonl", *rows)
    assert "--pictures DIR" in egm("data", "convert", "rows.jsonl", "out.jsonl", "--images", "in", "--flip").err
    outcome = egm("data", "convert", "rows.jsonl", "out.jsonl", "--images", "in", "--flip", "--pictures", "out")
    assert (outcome.code, outcome.out, outcome.err) == (0, "out.jsonl\n", "")
    samples = list(open_dataset(tmp_path / "out.jsonl", images=tmp_path / "out"))
    assert [sample.phrase for sample in samples] == ["right cup", "left-most mug"]
    assert [(sample.box, sample.size) for sample in samples] == [(Box(30, 2, 59, 40), (60, 50))] * 2
    path = tmp_path.resolve() / "out" / "a.png"
    assert {sample.image for sample in samples} == {path}
    with Image.open(path) as mirrored:
        assert mirrored.format == "PNG"
        assert [mirrored.getpixel((x, 20))[0] > 200 for x in (10, 45)] == [False, True]
    # Never over the pictures themselves.
    (tmp_path / "in" / "a.png").write_bytes(b"mine")
    outcome = egm("data", "convert", "rows.jsonl", "again.jsonl", "--images", "in", "--flip", "--pictures", "in")
    assert (outcome.code, "is another file" in outcome.err) == (2, True)
