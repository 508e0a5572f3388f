"""Parquet: expressions from their lists, pictures from inside the file, and scales that are declared or refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from egm.backends import ScriptedBackend
from egm.boxes import Box
from egm.codecs import get_codec
from egm.datasets import open_dataset, parquet
from egm.datasets.formats.recognise import known_columns
from egm.datasets.indexed import open_indexed
from egm.datasets.parquet import ParquetFiles, rows_at_once
from egm.datasets.refcoco import find_files
from egm.errors import DataError
from egm.evaluate import evaluate
from egm.grounder import Grounder
from egm.images import load_image


def picture(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (60, 50), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, *rows: dict[str, Any], group: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=group)
    return path


def lmms(number: int) -> dict[str, Any]:
    return {
        "question_id": str(number),
        "image": {"bytes": picture(number), "path": None},
        "question": "Please carefully observe the area circled in the image.",
        "answer": [f"cup {number}", f"mug {number}"],
        "bbox": [1.0, 2.0, 30.0, 40.0],
        "file_name": f"COCO_train2014_000000000005_{number}.jpg",
    }


def test_lmms_lab_gives_a_sample_an_expression_and_the_picture_of_its_row(tmp_path: Path) -> None:
    data = open_dataset(write(tmp_path / "val.parquet", *(lmms(number) for number in range(5))))
    assert [sample.phrase for sample in data][:3] == ["cup 0", "mug 0", "cup 1"]
    assert data[0].box == Box(1, 2, 31, 42)
    assert data.annotations()[0].image == Path("COCO_train2014_000000000005.jpg")
    for index in (9, 0, 4, 3):  # back and forth over the groups
        assert load_image(data[index].image).getpixel((0, 0)) == (index // 2, 0, 0)
    assert "_row" not in data[0].meta


def test_shards_are_one_split(tmp_path: Path) -> None:
    folder = tmp_path / "RefCOCO" / "data"
    for shard in range(2):
        write(folder / f"val-{shard:05d}-of-00002.parquet", lmms(2 * shard), lmms(2 * shard + 1))
    data = open_dataset("refcoco/val", data=tmp_path, allow_partial=True)
    assert [sample.phrase for sample in data][::2] == ["cup 0", "cup 1", "cup 2", "cup 3"]
    assert load_image(data[-1].image).getpixel((0, 0)) == (3, 0, 0)


JXU124 = {
    "ref_id": 3,
    "image_id": 5,
    "category_id": 44,
    "file_name": "COCO_train2014_000000000005_3.jpg",
    "split": "train",
    "sentences": [{"sent": "a cup", "raw": "A cup"}, {"sent": "a mug", "raw": "A mug"}],
    "raw_image_info": '{"file_name": "COCO_train2014_000000000005.jpg", "height": 50, "width": 60}',
    "bbox": [1.0, 2.0, 30.0, 40.0],
}


@pytest.mark.parametrize(
    ("name", "shard"),
    [("refcoco/val", "validation"), ("refcoco/testA", "test"), ("refcoco/testB", "testB"), ("refcocog/test", "test")],
)
def test_jxu124_splits_go_by_its_own_names(tmp_path: Path, name: str, shard: str) -> None:
    write(tmp_path / name.partition("/")[0] / "data" / f"{shard}-00000-of-00001.parquet", JXU124)
    data = open_dataset(name, data=tmp_path, allow_partial=True)
    assert (data.kind, [sample.phrase for sample in data]) == ("jxu124", ["a cup", "a mug"])


def test_a_split_of_its_own_name_goes_before_that_of_jxu124(tmp_path: Path) -> None:
    for shard in ("test", "testA"):  # lmms-lab has both; its `test` is google's
        write(
            tmp_path / "RefCOCO" / "data" / f"{shard}-00000-of-00001.parquet", {**JXU124, "file_name": f"{shard}.jpg"}
        )
    assert find_files("refcoco/testA", tmp_path)[0].name.startswith("testA-")


def test_jxu124_boxes_are_xyxy(tmp_path: Path) -> None:
    first, second = open_dataset(write(tmp_path / "a.parquet", JXU124), images=tmp_path)
    assert (first.phrase, second.phrase, first.box, first.size) == ("a cup", "a mug", Box(1, 2, 30, 40), (60, 50))
    assert first.image == tmp_path.resolve() / "COCO_train2014_000000000005.jpg"
    assert first.meta["category_id"] == 44


def reinforcement(**extra: Any) -> dict[str, Any]:
    question = "<image>\nLocate the cup, output its bbox coordinates using JSON format"
    return {
        "data_source": "grounding",
        "prompt": [{"role": "user", "content": question}],
        "images": ["coco/a.jpg"],
        "ability": "grounding",
        "reward_model": {"style": "rule", "ground_truth": [100, 200, 300, 400]},
        "extra_info": {"split": "train", "index": 0, "height": 500, "width": 2000, **extra},
    }


def test_official_rl_rows_are_on_the_1000_scale(tmp_path: Path) -> None:
    [sample] = open_dataset(write(tmp_path / "a.parquet", reinforcement()))
    assert (sample.phrase, sample.box, sample.image) == ("the cup", Box(200, 100, 600, 200), Path("coco/a.jpg"))


def test_ids_that_are_the_same_in_every_row_are_not_used(tmp_path: Path) -> None:
    data = open_dataset(write(tmp_path / "a.parquet", reinforcement(id=-1), reinforcement(id=-1)))
    assert [sample.id for sample in data] == ["a/1", "a/2"]


def test_a_box_in_pixels_beside_it_counts(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "<image>Which mug would you take?"}]
    row = reinforcement(bbox=[200.5, 99.5, 601.0, 200.0], sent="a mug", amodal=True)
    [sample] = open_dataset(write(tmp_path / "a.parquet", row | {"images": [{"image": "b.jpg"}], "prompt": prompt}))
    assert (sample.phrase, sample.box, sample.amodal) == ("a mug", Box(200.5, 99.5, 601, 200), True)
    assert sample.image == Path("b.jpg")


def test_of_several_turns_the_last_asks(tmp_path: Path) -> None:
    words = ["Locate the dog, output its bbox coordinates using JSON format.", "[1, 2, 3, 4]"]
    turns = [{"role": role, "content": content} for role, content in zip(("user", "assistant"), words, strict=True)]
    row = reinforcement()
    [sample] = open_dataset(write(tmp_path / "a.parquet", row | {"prompt": turns + row["prompt"]}))
    assert sample.phrase == "the cup"


def test_a_phrase_that_only_other_rows_say_is_that_of_the_prompt(tmp_path: Path) -> None:
    data = open_dataset(write(tmp_path / "a.parquet", reinforcement(), reinforcement(sent="The cup")))
    assert [sample.phrase for sample in data] == ["the cup", "The cup"]  # parquet fills the first with null


@pytest.mark.parametrize("said", ["the cup", "The  cup.", " the cup "])
def test_the_phrase_may_stand_in_the_row_as_well(tmp_path: Path, said: str) -> None:
    [sample] = open_dataset(write(tmp_path / "a.parquet", reinforcement(sent=said)))
    assert (sample.phrase, sample.amodal) == (said, False)
    whole = {"role": "user", "content": "Locate the cup amodally, output its bbox coordinates using JSON format."}
    for extra, amodal in (({}, True), ({"amodal": True}, True)):
        [sample] = open_dataset(write(tmp_path / "b.parquet", reinforcement(sent=said, **extra) | {"prompt": [whole]}))
        assert sample.amodal is amodal


def test_pictures_inside_rl_rows(tmp_path: Path) -> None:
    row = reinforcement() | {"images": [{"bytes": picture(9), "path": None}]}
    [sample] = open_dataset(write(tmp_path / "a.parquet", row))
    assert load_image(sample.image).getpixel((0, 0)) == (9, 0, 0)


def test_of_two_pictures_inside_a_row_none_is_taken(tmp_path: Path) -> None:
    row = reinforcement(height=50, width=60) | {"images": [{"bytes": picture(shade)} for shade in (1, 2)]}
    data = open_dataset(write(tmp_path / "a.parquet", row, row | {"images": [{"bytes": picture(3)}]}))
    assert load_image(data[1].image).getpixel((0, 0)) == (3, 0, 0)
    with pytest.raises(DataError, match="row 1 holds 2 pictures: one is needed"):
        _ = data[0]
    grounder = Grounder(ScriptedBackend(["none"]), get_codec("qwen3_vl"))
    first, second = evaluate(data, grounder, tmp_path / "run", max_errors=1, progress=False).records
    assert first.error == "DataError: row 1 holds 2 pictures: one is needed, as the box does not say which it is on"
    assert second.error is None


def test_columns_that_a_format_does_not_know_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [JXU124 | {"ref_id": number, "blob": "x" * 10_000} for number in range(40)]
    path = write(tmp_path / "a.parquet", *rows, group=20)
    monkeypatch.setattr(parquet, "MAX_GROUP", 5_000)
    assert len(open_dataset(path)) == 80
    read = ParquetFiles([path], known_columns=known_columns)
    assert all("blob" not in row for _, row in read.rows())
    assert "blob" not in read.row(5)[0]
    indexed = open_indexed(path)
    assert indexed is not None
    assert [sample.phrase for sample in indexed] == ["a cup", "a mug"] * 40


def test_a_column_that_is_read_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every row means the same long text, which stands in the file once.
    path = write(tmp_path / "a.parquet", *[JXU124 | {"split": "x" * 10_000}] * 40, group=40)
    assert path.stat().st_size < 20_000
    assert rows_at_once(pq.ParquetFile(path), {"split"}) == 4096
    monkeypatch.setattr(parquet, "MAX_BATCH", 55_000)
    assert rows_at_once(pq.ParquetFile(path), {"split"}) == 5
    assert len(open_dataset(path)) == 80
    monkeypatch.setattr(parquet, "MAX_GROUP", 5_000)
    with pytest.raises(DataError, match=r"MB of 'split' in one row group, over the limit of"):
        open_dataset(path)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (reinforcement() | {"data_source": "other"}, "does not say on which scale"),
        (reinforcement() | {"prompt": [{"role": "system", "content": "x"}]}, "a turn of the user"),
        (reinforcement() | {"images": ["/etc/passwd"]}, "lies outside"),
        (reinforcement() | {"images": pa.scalar([], pa.list_(pa.string())).as_py()}, "image must be a relative path"),
        (reinforcement() | {"extra_info": "x"}, "extra_info must be an object"),
        (lmms(1) | {"answer": []}, "has no expressions"),
        (lmms(1) | {"answer": ["a", ""]}, "empty"),
        (lmms(1) | {"bbox": [1.0]}, "is not x, y, width, height"),
        (reinforcement() | {"images": ["a.jpg", "b.jpg"]}, "row 1: holds 2 pictures: one is needed"),
        (reinforcement() | {"images": [{"image": "a.jpg"}, {"image": "b.jpg"}]}, "holds 2 pictures"),
        (reinforcement() | {"prompt": [{"role": "user", "content": "<image><image>\nLocate x"}]}, "about 2 pictures"),
        (reinforcement(bbox=[200, 100, 600, 210.0]), "and extra_info.bbox .* are two boxes"),
        (
            reinforcement(bbox=[100, 200, 300, 400]),
            r"ground_truth \[100, 200, 300, 400\] and extra_info.bbox .* two boxes",
        ),
        (reinforcement(bbox=[1, 2, 3, 4]) | {"data_source": "other"}, "are two boxes"),
        (reinforcement(sent="the dog"), "prompt asks for 'the cup', and extra_info.sent is 'the dog'"),
        (reinforcement(sent="the cup", amodal=True), "prompt does not ask for the whole object"),
        (reinforcement(amodal="false", sent="it"), "amodal 'false' is neither true nor false"),
        (JXU124 | {"raw_image_info": '{"file_name": '}, "sentences must be a list of objects with sent"),
        (JXU124 | {"raw_image_info": "[]"}, "sentences must be a list of objects with sent"),
        ({"text": "x"}, "no known format"),
    ],
)
def test_what_is_refused(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_dataset(write(tmp_path / "a.parquet", row))


def test_a_value_that_is_meant_in_every_row_is_counted_in_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dictionary stores it once, and says so of its size; samples hold it row by row."""
    monkeypatch.setattr("egm.datasets.parquet.MAX_HELD", 2**20)
    row = {"id": "1", "image": "a.png", "sent": "it", "bbox": [1, 2, 30, 40], "height": 64, "width": 64}
    rows = [row | {"junk": {"deep": ["x" * 100_000]}} for _ in range(20)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").stat().st_size < 200_000
    with pytest.raises(DataError, match="row 11 and those before it hold more than 1 MB of text: split the file"):
        open_dataset(tmp_path / "rows.parquet")
    indexed = open_indexed(tmp_path / "rows.parquet")
    assert indexed is not None
    assert sum(1 for _ in indexed.scan()) == 20  # which holds them one by one
