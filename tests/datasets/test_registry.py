"""Names of splits: where files are found, and what is refused for its size."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from egm.datasets import EVALUATION, SIZES, open_dataset
from egm.datasets.registry import dataset_names, evaluation_images
from egm.datasets.synthetic import SynthRef
from egm.errors import DataError

EXPRESSIONS, REFS, IMAGES = SIZES["refcoco/testB"]


def write_split(folder: Path, *, drop: int = 0, name: str = "refcoco_testB.json") -> Path:
    """A split with the right numbers of expressions, referents and images."""
    assert REFS is not None and IMAGES is not None  # noqa: PT018
    rows = [
        {
            "img_id": f"COCO_train2014_{index % REFS % IMAGES:012d}_{index % REFS}",
            "sents": f"thing {index}",
            "bbox": [1, 2, 3, 4],
            "height": 50,
            "width": 60,
        }
        for index in range(EXPRESSIONS - drop)
    ]
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def test_the_eight_splits_are_57_457_expressions() -> None:
    assert len(EVALUATION) == 8
    assert sum(SIZES[name].expressions for name in EVALUATION) == 57_457
    assert set(EVALUATION) <= set(dataset_names())


def test_a_split_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_split(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EGM_DATA", raising=False)
    data = open_dataset("refcoco/testB")  # ./data
    assert (data.name, len(data), data.root) == ("refcoco/testB", EXPRESSIONS, None)
    assert len({sample.id for sample in data}) == EXPRESSIONS
    assert data[0].image == Path("COCO_train2014_000000000000.jpg")
    assert (data[0].meta["split"], data[0].meta["image_id"]) == ("testB", 0)
    monkeypatch.setenv("EGM_DATA", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"no annotations of refcoco/testB in '.*none': take .*MiniGPT-4"):
        open_dataset("refcoco/testB")
    assert len(open_dataset("refcoco/testB", data=tmp_path / "data")) == EXPRESSIONS


def test_images_lie_in_the_folder_or_in_its_train2014(tmp_path: Path) -> None:
    write_split(tmp_path)
    (tmp_path / "coco").mkdir()
    name = "COCO_train2014_000000000000.jpg"
    for folder in ("coco", "coco/train2014"):
        (tmp_path / folder).mkdir(exist_ok=True)
        data = open_dataset("refcoco/testB", images=tmp_path / "coco", data=tmp_path)
        assert data[0].image == tmp_path.resolve() / folder / name


def test_a_split_of_another_size_is_refused_with_its_counts(tmp_path: Path) -> None:
    write_split(tmp_path, drop=5)
    with pytest.raises(DataError, match=r"5,090 expressions instead of 5,095 .*allow-partial"):
        open_dataset("refcoco/testB", data=tmp_path)
    assert len(open_dataset("refcoco/testB", data=tmp_path, allow_partial=True)) == EXPRESSIONS - 5


def test_the_google_rows_in_lmms_labs_val_are_named(tmp_path: Path) -> None:
    rows = [
        {
            "question_id": str(k),
            "answer": ["a cup"],
            "bbox": [1.0, 2.0, 3.0, 4.0],
            "file_name": f"COCO_train2014_{k % 1500:012d}_{k}.jpg",
        }
        for k in range(8_811)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "refcoco_val.parquet")
    with pytest.raises(
        DataError, match=r"8,811 refs instead of 3,811.*lmms-lab's val mixes in 5,000 rows of the google"
    ):
        open_dataset("refcoco/val", data=tmp_path)


def test_other_prefixes_of_the_same_images_do_not_matter(tmp_path: Path) -> None:
    row = {"image": "data/coco/train2014/COCO_train2014_000000000005.jpg", "sent": "x", "bbox": [1, 2, 3, 4]}
    (tmp_path / "refcocog_val.jsonl").write_text(json.dumps(row))
    [sample] = open_dataset("refcocog/val", data=tmp_path, allow_partial=True)
    assert sample.image == Path("COCO_train2014_000000000005.jpg")


def test_the_plus_of_refcoco_plus_may_be_spelt_out(tmp_path: Path) -> None:
    write_split(tmp_path, name="refcocop_testB.json")
    assert open_dataset("refcoco+/testB", data=tmp_path, allow_partial=True).name == "refcoco+/testB"


def test_synthref_by_its_name() -> None:
    data, made = open_dataset("synthref/val"), SynthRef("val")
    last = made.samples(499)[-1]
    assert (data.name, data[-1].id, data[-1].phrase) == ("synthref/val", last.id, last.phrase)
    assert data[-1].image.tobytes() == last.image.tobytes()  # type: ignore[union-attr]
    with pytest.raises(DataError, match="has no end"):
        open_dataset("synthref/train")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("refcoco/vla", "did you mean 'refcoco/val'"),
        ("nothing.jsonl", "no dataset at nothing.jsonl"),
        ("synthref/none", "has no split 'none'"),
        ("a\0b", "no dataset at"),
        ("x" * 5000, "no dataset at"),
    ],
)
def test_unknown_names(name: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_dataset(name)


def test_evaluation_images_need_all_eight(tmp_path: Path) -> None:
    write_split(tmp_path)
    with pytest.raises(DataError, match="no annotations of refcoco/val"):
        evaluation_images(tmp_path)


def test_without_a_folder_of_images_no_link_leads_out_of_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, secret = tmp_path / "here", tmp_path / "secret"
    for folder in (here / "inner", secret):
        folder.mkdir(parents=True)
        Image.new("RGB", (10, 10)).save(folder / "0.png")
    monkeypatch.chdir(here)
    row = {"problem": "it", "solution": [0, 0, 5, 5], "height": 10, "width": 10}

    def names(image: str) -> list[str]:
        (tmp_path / "rows.json").write_text(json.dumps([{**row, "image": image}]))
        return [str(sample.image) for sample in open_dataset(tmp_path / "rows.json")]

    (here / "out").symlink_to(secret)
    (here / "in").symlink_to(here / "inner")
    for image in ("0.png", "in/0.png"):  # neither a file that is not there nor a link that stays inside
        assert names(image) == [image]
    with pytest.raises(
        DataError, match=r"'out/0.png' lies outside \.; only files .*: give the folder .* with --images"
    ):
        names("out/0.png")
    assert open_dataset(tmp_path / "rows.json", images=tmp_path / "here" / "out")[0].size == (10, 10)


def test_annotations_of_the_evaluation_splits_need_no_folder_that_links_stay_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "COCO_train2014_000000000005.jpg"
    for split in EVALUATION:
        row = {"image": name, "sent": "x", "bbox": [1, 2, 3, 4]}
        (tmp_path / f"{split.replace('/', '_')}.jsonl").write_text(json.dumps(row))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / name).symlink_to(tmp_path / "elsewhere.jpg")
    monkeypatch.chdir(tmp_path / "here")
    assert evaluation_images(tmp_path, allow_partial=True) == {name: list(EVALUATION)}
    with pytest.raises(DataError, match="lies outside"):
        open_dataset("refcoco/val", data=tmp_path, allow_partial=True)
