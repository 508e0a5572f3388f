"""What is written can be read back, and says the same."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from egm.boxes import Box
from egm.codecs import get_codec
from egm.datasets import Dataset, flip_sample, open_dataset, row_of, write_dataset
from egm.datasets.convert import ENDINGS, save_pictures
from egm.datasets.indexed import open_indexed
from egm.errors import DataError, ImageError
from egm.images import load_image, read_picture_header
from egm.types import Sample

SAMPLES = [
    Sample("s/1", Path("in/a.png"), 'the "red" cup, left', Box(1.5, 2, 30.25, 40), (60, 50), rationale="It is."),
    Sample("s/2", Path("in/a.png"), "der Bär", Box(-5, 2, 70, 40), (60, 50), amodal=True, meta={"split": "val"}),
    Sample("s/3", Path("b.png"), "Locate it, output", Box(0, 0, 8, 8), (8, 8)),
]


@pytest.mark.parametrize("kind", ENDINGS)
def test_there_and_back(tmp_path: Path, kind: str) -> None:
    dataset = with_pictures(tmp_path.resolve())
    samples = dataset.annotations()
    path = tmp_path / "new" / f"set{ENDINGS[kind]}"
    write_dataset(dataset, path, kind)
    read = open_dataset(path, images=tmp_path)
    assert [(s.id, s.image, s.phrase, s.box, s.size, s.amodal) for s in read] == [
        (s.id, s.image, s.phrase, s.box, s.size, s.amodal) for s in samples
    ]
    if kind != "coco":
        assert [s.rationale for s in read] == ["It is.", None, None]
        assert read[1].meta["split"] == "val"
    assert not list(path.parent.glob(".*"))


@given(x=st.floats(0, 600), y=st.floats(0, 400), width=st.floats(0.01, 600), height=st.floats(0.01, 400))
def test_boxes_survive_to_a_millionth_of_a_pixel(
    tmp_path_factory: pytest.TempPathFactory, x: float, y: float, width: float, height: float
) -> None:
    path = tmp_path_factory.mktemp("coco") / "set.json"
    box = Box(x, y, x + width, y + height)
    write_dataset(Dataset("set", [Sample("1", "a.png", "it", box, (640, 480))]), path, "coco")
    read = open_dataset(path)[0].box
    assert read is not None
    assert all(abs(a - b) < 3e-6 for a, b in zip(read, box, strict=True))


def test_a_row_says_what_is_known_and_no_more() -> None:
    bare = Sample("1", "a.png", "it")
    assert row_of(bare, "x/a.png") == {"id": "1", "image": "x/a.png", "sent": "it"}
    assert row_of(bare, "a.png", always_amodal=True)["amodal"] is False
    full = Sample("1", "a.png", "it", Box(1, 2.5, 3, 4), (9, 8), amodal=True, rationale="So.", meta={"id": 7, "n": 1})
    assert list(row_of(full, "a.png").items()) == [
        *(("id", "1"), ("image", "a.png"), ("sent", "it"), ("bbox", [1, 2.5, 3, 4]), ("height", 8), ("width", 9)),
        *(("amodal", True), ("rationale", "So."), ("n", 1)),
    ]


def with_pictures(folder: Path) -> Dataset:
    """The samples, with their pictures in a folder."""
    (folder / "in").mkdir()
    for sample in SAMPLES:
        assert sample.size is not None
        Image.new("RGB", sample.size).save(folder / str(sample.image))
    samples = [replace(sample, image=folder / str(sample.image)) for sample in SAMPLES]
    return Dataset("set", samples, root=folder)


@pytest.mark.parametrize("codec", ["qwen3_vl", "qwen3_vl_instruct", "internvl"])
def test_rl_rows_are_what_the_reward_and_verl_expect(tmp_path: Path, codec: str) -> None:
    write_dataset(with_pictures(tmp_path), tmp_path / "set.parquet", "parquet", codec=get_codec(codec))
    rows = pq.read_table(tmp_path / "set.parquet").to_pylist()
    for row, sample in zip(rows, SAMPLES, strict=True):
        assert sample.box is not None
        assert row["reward_model"]["ground_truth"] == row["extra_info"]["bbox"] == list(sample.box)  # in pixels
        assert (row["extra_info"]["width"], row["extra_info"]["height"]) == sample.size
        assert row["extra_info"]["amodal"] is sample.amodal
        assert row["data_source"] == "egm/set"  # "grounding" means the 0-1000 scale
        [picture] = row["images"]
        assert Path(picture["image"]).is_absolute()
        assert load_image(picture["image"]).size == sample.size
        question = get_codec(codec).messages(sample.phrase, amodal=sample.amodal)[0]["content"][1]["text"]
        assert row["prompt"] == [{"role": "user", "content": f"<image>{question}"}]


@pytest.mark.parametrize(("size", "orientation"), [((30, 25), 1), ((50, 60), 1), ((60, 50), 3), ((50, 60), 6)])
def test_rl_rows_are_not_written_about_other_pictures(tmp_path: Path, size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", size).save(tmp_path / "a.jpg", exif=exif)
    dataset = Dataset("set", [replace(SAMPLES[0], image=tmp_path / "a.jpg")])
    says = "the row says 60 x 50, the picture is" if orientation == 1 else "a.jpg' is turned by EXIF"
    with pytest.raises((DataError, ImageError), match=says):
        write_dataset(dataset, tmp_path / "set.parquet", "parquet")
    assert read_picture_header(tmp_path / "a.jpg") == (load_image(tmp_path / "a.jpg").size, orientation != 1)


@pytest.mark.parametrize("kind", ENDINGS)
def test_paths_may_be_strings(tmp_path: Path, kind: str) -> None:
    folder, path = str(tmp_path.resolve()), str(tmp_path / "new" / f"set{ENDINGS[kind]}")
    write_dataset(with_pictures(Path(folder)), path, kind)
    assert list(open_dataset(path, images=folder)) == list(open_dataset(Path(path), images=Path(folder)))
    if kind != "coco":
        indexed = open_indexed(path, images=folder)
        assert indexed is not None
        assert [sample.phrase for sample in indexed] == [sample.phrase for sample in SAMPLES]
    with pytest.raises(DataError, match="no annotations of refcoco/val in"):
        open_dataset("refcoco/val", images=folder, data=folder)
    saved = save_pictures(open_dataset("synthref/val", first=1), str(tmp_path / "drawn"))
    assert load_image(saved[0].image).size == saved[0].size


def test_coco_json_shares_images(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    write_dataset(Dataset("set", SAMPLES), path, "coco")
    content = json.loads(path.read_text())
    assert [image["file_name"] for image in content["images"]] == ["in/a.png", "b.png"]
    assert content["annotations"][0]["bbox"] == [1.5, 2, 28.75, 38]
    assert {annotation["category_id"] for annotation in content["annotations"]} == {1}


def test_what_cannot_be_written(tmp_path: Path) -> None:
    bare = Dataset("set", [Sample("1", "a.png", "it")])
    with pytest.raises(DataError, match="1 has no box"):
        write_dataset(bare, tmp_path / "x", "coco")
    bare = Dataset("set", [replace(SAMPLES[0], image="/none.png")])
    with pytest.raises(DataError, match=r"1 pictures of set are not there, such as '/none.png'.*--images"):
        write_dataset(bare, tmp_path / "x", "parquet")
    write_dataset(bare, tmp_path / "x.jsonl", "jsonl")
    with pytest.raises(DataError, match="choose one of jsonl, parquet, coco"):
        write_dataset(bare, tmp_path / "x", "csv")
    with pytest.raises(DataError, match="is not a file"):
        write_dataset(Dataset("set", [Sample("1", Image.new("RGB", (8, 8)), "it")]), tmp_path / "x", "jsonl")
    with pytest.raises(DataError, match="are not files"):
        write_dataset(open_dataset("synthref/val"), tmp_path / "x", "jsonl")
    sizes = Dataset("set", [Sample(str(k), "a.png", "it", Box(0, 0, 1, 1), (8, k)) for k in (8, 9)])
    with pytest.raises(DataError, match="an earlier row says otherwise"):
        write_dataset(sizes, tmp_path / "x", "coco")
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


@pytest.mark.parametrize("kind", ENDINGS)
def test_pictures_inside_a_file_are_saved_and_named(tmp_path: Path, kind: str) -> None:
    streams = [io.BytesIO() for _ in range(2)]
    for stream, shade in zip(streams, (10, 200), strict=True):
        Image.new("RGB", (60, 50), (shade, 0, 0)).save(stream, "JPEG")
    rows = [
        {
            "question_id": str(number),
            "image": {"bytes": stream.getvalue(), "path": None},
            "answer": ["cup", "mug"],
            "bbox": [1.0, 2.0, 30.0, 40.0],
            "file_name": f"COCO_train2014_00000000000{number}_7.jpg",
        }
        for number, stream in enumerate(streams)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "val.parquet")
    saved = save_pictures(open_dataset(tmp_path / "val.parquet"), tmp_path / "pictures")
    out = tmp_path / f"out{ENDINGS[kind]}"
    write_dataset(saved, out, kind)
    back = open_dataset(out, images=tmp_path / "pictures")
    assert [(s.phrase, s.box, s.size) for s in back] == [(p, Box(1, 2, 31, 42), (60, 50)) for p in ("cup", "mug") * 2]
    for number, stream in enumerate(streams):
        path = tmp_path / "pictures" / f"COCO_train2014_00000000000{number}.jpg"
        assert path.read_bytes() == stream.getvalue()  # as it was, not compressed again
        assert {str(back[2 * number + k].image) for k in (0, 1)} == {str(path.resolve())}
    save_pictures(open_dataset(tmp_path / "val.parquet"), tmp_path / "pictures")  # the same again
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match="is there already and is another file"):
        save_pictures(open_dataset(tmp_path / "val.parquet"), tmp_path / "pictures")
    assert path.read_bytes() == b"mine"


def test_names_inside_a_file_cannot_leave_the_folder_of_its_pictures(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    row = {"question_id": "1", "image": {"bytes": stream.getvalue()}, "answer": ["cup"], "bbox": [0.0, 0.0, 5.0, 5.0]}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    pq.write_table(pa.Table.from_pylist([{**row, "file_name": "link/evil.png"}]), tmp_path / "val.parquet")
    with pytest.raises(DataError, match="lies outside"):
        save_pictures(open_dataset(tmp_path / "val.parquet"), tmp_path / "out")
    assert not (tmp_path / "evil.png").exists()


@pytest.mark.parametrize("kind", ["parquet", "ms-swift", "coco"])
def test_none_and_many_are_written_as_jsonl_alone(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    boxes = (Box(0, 0, 10, 10), Box(20, 0, 30, 10))
    facts = {"image": tmp_path / "a.png", "phrase": "left cups", "size": (40, 20), "expect": "all"}
    samples = [Sample("1", boxes=boxes, **facts), Sample("2", boxes=(), **facts), Sample("3", box=boxes[0], **facts)]  # type: ignore[arg-type]
    dataset = Dataset("x", samples, root=tmp_path)
    write_dataset(dataset, tmp_path / "x.jsonl", "jsonl")
    read = list(open_dataset(tmp_path / "x.jsonl"))
    assert [(s.truths, s.expect) for s in read] == [(s.truths, "all") for s in samples]
    mirrored = [flip_sample(sample) for sample in samples]
    assert [s.truths for s in mirrored] == [(Box(30, 0, 40, 10), Box(10, 0, 20, 10)), (), (Box(30, 0, 40, 10),)]
    for sample in samples:
        with pytest.raises(DataError, match="expects all, and a row of this format one box: write jsonl"):
            write_dataset(Dataset("x", [sample], root=tmp_path), tmp_path / "out", kind)
