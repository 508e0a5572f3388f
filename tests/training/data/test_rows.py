"""What a recipe trains on: sources mixed, and everything wrong with them told by row before the first step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from egm.codecs import get_codec
from egm.datasets.synthetic import SPLITS, TRAINING
from egm.errors import DataError
from egm.models import build_config, build_processor, get_preset
from egm.training.data import DatasetRows, MixedRows, Order, SynthRefRows, check_boxes, check_rows, open_rows
from egm.training.data.collate import Collator
from egm.training.recipe import SourceSection

ROW = {"image": "a.png", "sent": "it", "bbox": [1, 2, 30, 40], "height": 64, "width": 64, "rationale": "It is there."}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.delenv("EGM_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def check(path: Path, **options: Any) -> Any:
    rows = open_rows(str(path), seed=0)
    return check_rows(rows, **{"held_out": {}} | options)


def turns(answer: str) -> dict[str, Any]:
    question = {"from": "human", "value": "<image>\nLocate a cup, output its bbox coordinates using JSON format."}
    return {"image": "a.png", "height": 64, "width": 64, "conversations": [question, {"from": "gpt", "value": answer}]}


def test_sound_rows_pass(folder: Path) -> None:
    amodal = ROW | {"amodal": True, "bbox": [-9, 2, 70, 40]}
    report = check(write(folder, ROW, amodal, {key: ROW[key] for key in ("image", "sent", "bbox", "rationale")}))
    assert (report.samples, report.leaks) == (3, "no image is named as one of the eight evaluation splits of RefCOCO")
    assert check_rows(SynthRefRows(10, 0)).samples == 0
    mixed = MixedRows([SynthRefRows(10, 0, phrases=1), open_rows("rows.jsonl", seed=0)], [1, 1])
    check_boxes(mixed)
    write(folder, ROW, ROW | {"bbox": None})
    mixed = MixedRows([SynthRefRows(10, 0, phrases=1), open_rows("rows.jsonl", seed=0)], [1, 1])
    with pytest.raises(DataError, match=r"1 without a box \(line 2\)"):
        check_boxes(mixed)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (ROW | {"bbox": None}, r"2 without a box \(line 2; line 4\): training needs one in every row"),
        (ROW | {"rationale": ""}, r"2 without a rationale \(line 2; line 4\): add one, or set data\.thinking to false"),
        (ROW | {"bbox": [1, 2, 70, 40]}, r"2 with a box outside .*line 2: 1, 2, 70, 40 in 64 x 64 pixels.* in pixels"),
        (ROW | {"bbox": [100, 200, 900, 990]}, r"2 with a box outside its image .*line 4: 100, 200, 900, 990 in"),
        (ROW | {"amodal": True, "bbox": [80, 2, 90, 40]}, "2 with a box outside its image"),
        (ROW | {"bbox": [30, 40, 10, 10]}, r"2 cannot be read \(line 2: bbox \[30, 40, 10, 10\] is not"),
        (ROW | {"image": "gone.png"}, r"2 whose image is missing \(line 2: gone\.png; line 4: gone\.png\)"),
        (ROW | {"image": "../x.png"}, r"2 cannot be read \(line 2: image '\.\./x\.png' lies outside"),
        ("{", r"2 cannot be read \(line 2: is not JSON"),
    ],
)  # fmt: skip
def test_faults_are_told_by_row_in_one_line(folder: Path, bad: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        check(write(folder, ROW, bad, ROW, bad, ROW))
    assert str(caught.value).startswith(f"{folder / 'rows.jsonl'} has 5 rows, and of these 2 ")
    assert "\n" not in str(caught.value)


def test_values_beyond_the_declared_scale_are_refused_not_guessed(folder: Path) -> None:
    good, bad = (
        turns("So.</think>\n<box>[[1, 2, 1000, 900]]</box>"),
        turns("So.</think>\n<box>[[10, 20, 640, 1200]]</box>"),
    )
    assert check(write(folder, good)).samples == 1
    with pytest.raises(DataError, match=r"1 with a box outside .*line 2: 10, 20, 640, 1200 in .* on the 0-1000 scale"):
        check(write(folder, good, bad))


def test_several_faults_share_the_line_and_long_lists_are_cut(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        check(write(folder, *[ROW | {"bbox": None}] * 7, *[ROW | {"rationale": None}] * 2))
    text = str(caught.value)
    assert "7 without a box (line 1; line 2; line 3; line 4; line 5, ...)" in text
    assert "2 without a rationale (line 8; line 9)" in text
    assert check(write(folder, ROW | {"rationale": None}), thinking=False).samples == 1


def test_a_rationale_longer_than_the_window_is_found_before_training(folder: Path) -> None:
    path = write(folder, ROW, ROW | {"rationale": "It is there. " * 60}, ROW | {"rationale": "word " * 40})
    rows = open_rows(str(path), seed=0)
    config = build_config(get_preset("tiny-s"))
    collator = Collator(rows, build_processor(), get_codec("qwen3_vl"), config, max_length=256)
    with pytest.raises(
        DataError, match=r"1 longer than data\.max_length 256 \(line 2: \d+ tokens\): raise it, shorten"
    ):
        check_rows(rows, held_out={}, max_length=256, length=collator.length)
    whole = collator.length(rows[1][0])
    with pytest.raises(DataError, match=f"takes {whole} tokens"):
        collator([{"row": 1}])


def test_boxes_of_rows_without_a_size_are_held_against_the_picture(folder: Path) -> None:
    path = write(
        folder, {key: ROW[key] for key in ("image", "sent", "rationale")} | {"bbox": [1, 2, 70, 40], "id": "x"}
    )
    rows = open_rows(str(path), seed=0)
    config = build_config(get_preset("tiny-s"))
    with pytest.raises(DataError, match="sample x has its box outside its image"):
        Collator(rows, build_processor(), get_codec("qwen3_vl"), config)([{"row": 0}])


def test_evaluation_images_are_refused_with_a_list(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    held_out = {f"COCO_train2014_{number:012d}.jpg": ["refcoco/val"] for number in range(20)}
    names = [f"flip/COCO_train2014_{number:012d}.jpg" for number in range(14, 30)]
    (folder / "flip").mkdir()
    for name in names:
        (folder / name).touch()
    path = write(folder, *[ROW | {"image": name} for name in names], ROW | {"image": names[0]})
    listing = folder / "runs" / "one.leaks.txt"
    with pytest.raises(DataError) as caught:
        check(path, held_out=held_out, listing=listing)
    text = str(caught.value)
    leaked = [f"COCO_train2014_{number:012d}.jpg\trefcoco/val" for number in range(14, 20)]
    assert listing.read_text().splitlines() == leaked
    assert text.startswith(
        "7 samples show 6 images of evaluation splits: COCO_train2014_000000000014.jpg is in refcoco/val"
    )
    assert f"and 1 more (the whole list is in {listing}): drop them, or pass --allow-leak" in text
    assert "7 samples show 6 images" in check(path, held_out=held_out, allow_leak=True).leaks
    assert "7 samples show 6 images" in caplog.text


def test_a_leak_check_that_was_not_made_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = check(write(folder, ROW), held_out=None)
    assert report.leaks == "no image is named as one of the eight evaluation splits of RefCOCO"
    assert "not looked for" not in caplog.text
    (folder / "COCO_train2014_000000000001.jpg").touch()
    report = check(write(folder, ROW, ROW | {"image": "COCO_train2014_000000000001.jpg"}), held_out=None)
    assert report.leaks.startswith("leaks of evaluation images were not looked for: no annotations of refcoco/val")
    assert report.leaks in caplog.text


def test_of_several_processes_the_first_warns(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "COCO_train2014_000000000001.jpg").touch()
    path = write(folder, ROW | {"image": "COCO_train2014_000000000001.jpg"})
    monkeypatch.setenv("RANK", "1")
    second = check(path, held_out=None)
    assert caplog.text == ""
    monkeypatch.setenv("RANK", "0")
    assert check(path, held_out=None) == second
    assert caplog.text.count(second.leaks) == 1


def test_pictures_inside_parquet_are_looked_for_by_name_where_they_have_one(folder: Path) -> None:
    shared = {"bbox": [1.0, 2.0, 30.0, 40.0], "image": {"bytes": (folder / "a.png").read_bytes(), "path": None}}
    row = {"question_id": "1", "answer": ["a cup"], "file_name": "COCO_train2014_000000000005_1.jpg"} | shared
    pq.write_table(pa.Table.from_pylist([row]), folder / "a.parquet")
    with pytest.raises(DataError, match="1 samples show 1 images"):
        check(folder / "a.parquet", thinking=False, held_out={"COCO_train2014_000000000005.jpg": ["refcoco/val"]})
    assert check(folder / "a.parquet", thinking=False).samples == 1


def test_sources_are_mixed_by_weight(folder: Path) -> None:
    write(folder, *[ROW | {"id": f"j{i}"} for i in range(10)])
    sources = [{"name": "synthref/train", "weight": 1}, {"path": "rows.jsonl", "weight": 3, "images": str(folder)}]
    rows = open_rows([SourceSection.model_validate(source) for source in sources], scenes=30, seed=0)
    assert isinstance(rows, MixedRows)
    assert rows.samples_per_row == 4
    drawn = [rows[row] for row in Order(rows, 0)]
    assert len(drawn) == 30 + 3  # ten samples make three rows beside scenes of four
    of_file = sum(samples[0].id.startswith("j") for samples in drawn)
    assert 20 <= of_file <= 29
    assert check_rows(rows, held_out={}).samples == 10


def test_a_source_is_asked_for_another_number_of_boxes(folder: Path) -> None:
    write(folder, ROW)
    files = [{"path": "rows.jsonl", "expect": "all"}, {"path": "rows.jsonl"}]
    sources = [{"name": "synthref/train", "expect": "any"}, *files]
    rows = open_rows([SourceSection.model_validate(source) for source in sources], scenes=2, phrases=1, seed=0)
    [plain] = SynthRefRows(2, 0, phrases=1)[0]
    assert rows[0] == [replace(plain, expect="any")]
    assert [rows[row][0].expect for row in range(4)] == ["any", "any", "all", "one"]
    assert isinstance(rows, MixedRows)
    assert check_rows(rows, held_out={}).samples == 2


def test_a_source_that_cannot_be_asked_so_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"synthref/train-any has questions that several .* expect all, not any"):
        open_rows([SourceSection(name="synthref/train-any", expect="any")], seed=0)
    none = {key: ROW[key] for key in ROW if key != "bbox"} | {"bboxes": [], "expect": "any"}
    write(folder, ROW, none)
    rows = open_rows([SourceSection(path=Path("rows.jsonl"), expect="one")], seed=0)
    says = r"1 that cannot be asked so \(line 2: it has no true box, as nothing matches, and expects one"
    with pytest.raises(DataError, match=says):
        check_rows(rows, held_out={})
    with pytest.raises(DataError, match=says):
        check_boxes(rows)
    with pytest.raises(DataError, match="cannot be trained on: it has no true box"):
        rows[1]


@pytest.mark.parametrize("split", sorted(set(SPLITS) - set(TRAINING)))
def test_frozen_splits_are_held_out_and_never_trained_on(split: str) -> None:
    name = f"synthref/{split}"
    for train in (name, [SourceSection(name="synthref/train"), SourceSection(name=name)]):
        with pytest.raises(DataError, match=f"data.train has {name}, .* never trained on: take synthref/train, "):
            open_rows(train, seed=0)
    assert open_rows(name, seed=0, first=1, held_out=True)[0][0].id.startswith(f"synthref1/{split}/")


def test_one_string_is_one_source(folder: Path) -> None:
    path = write(folder, ROW, ROW)
    rows = open_rows(str(path), seed=0)
    assert isinstance(rows, DatasetRows)
    assert (len(rows), rows.samples_per_row) == (2, 1)
    assert isinstance(open_rows("synthref/train", seed=0), SynthRefRows)
    (folder / "rows.json").write_text(json.dumps([ROW]))
    assert open_rows("rows.json", images=folder, seed=0)[0][0].phrase == "it"
