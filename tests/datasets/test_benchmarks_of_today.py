"""Benchmarks: what is read of files in their forms, and that other versions are refused by count and hash."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from egm.boxes import Box
from egm.datasets import dataset_names, open_dataset, split_size
from egm.datasets.benchmark_files import file_sha256
from egm.datasets.benchmarks import BENCHMARK_SPLITS, BENCHMARKS
from egm.datasets.coco_names import coco_number
from egm.datasets.formats.ref_adv import count_distractors
from egm.datasets.indexed import open_indexed
from egm.errors import DataError
from egm.evaluate.plan import image_order, plan_samples
from egm.images import load_image

from . import benchmark_files as files


@pytest.fixture
def data(tmp_path: Path) -> Path:
    files.write_all(tmp_path)
    return tmp_path


@pytest.mark.parametrize("split", BENCHMARK_SPLITS)
def test_every_split_is_read_and_expects_the_same_of_all_its_questions(data: Path, split: str) -> None:
    opened = open_dataset(split, data=data, allow_partial=True)
    benchmark = next(each for each in BENCHMARKS if split in each.names)
    assert {sample.expect for sample in opened.annotations()} == {benchmark.expect}
    assert all(sample.size == (files.WIDTH, files.HEIGHT) for sample in opened.annotations())
    assert all(sample.meta["split"] == split.partition("/")[2] for sample in opened.annotations())
    assert (opened.name, split in dataset_names()) == (split, True)
    if not opened.names_files:  # whose pictures lie in the file
        assert load_image(opened[0].image).size == (files.WIDTH, files.HEIGHT)


def test_ref_adv_keeps_what_its_authors_report_by(data: Path) -> None:
    first = open_dataset("ref-adv-s/test", data=data, allow_partial=True).annotations()[0]
    assert (first.box, first.image) == (Box(1, 2, 30, 40), Path("000000000000.jpg"))
    assert (first.meta["distractors"], first.meta["use_negation"]) == (3, True)


@pytest.mark.parametrize(
    ("said", "count"),
    [
        (["a", "b"], 2),
        ('["a", "b"]', 2),
        ("3", 3),
        (0, 0),
        ([], 0),
        (True, None),
        (-1, None),
        ("", None),
        ("[" * 100_000, None),
        ('[{"a": 1, "a": 2}]', None),
        ("9" * 10_000, None),
        ("[" + "[]," * 10_000_000 + "[]]", None),  # would take gigabytes
        ("\ud800", None),
    ],
)
def test_distractors_are_counted_where_they_can_be(said: object, count: int | None) -> None:
    assert count_distractors(said) == count


def test_both_splits_of_ref_l4_are_one_by_its_third_name(data: Path) -> None:
    both = open_dataset("ref-l4/all", data=data, allow_partial=True)
    assert [sample.id for sample in both] == ["0", "1", "2", "3"]
    assert both[0].box == Box(10, 5, 30.5, 35.25)


def test_refcoco_m_is_a_question_for_each_expression_of_each_object(data: Path) -> None:
    opened = open_dataset("refcoco-m/val", data=data, allow_partial=True)
    assert len(opened) == 8
    assert Counter(str(sample.image) for sample in opened.annotations()) == {
        f"COCO_train2014_{number:012}.jpg": 4 for number in range(2)
    }
    assert {sample.box for sample in opened.annotations()} == {Box(1, 2, 11, 22), Box(1, 2, 11, 23)}
    # No index tells where an expression is: the file is read whole, and none is lost.
    assert open_indexed(data / "refcoco-m" / "data" / "validation-00000-of-00002.parquet") is None


def test_what_grounding_me_rejects_matches_nothing_whatever_its_box_says(data: Path) -> None:
    one, none = open_dataset("groundingme/test", data=data, allow_partial=True).annotations()
    assert (one.box, none.truths, none.meta["kind"]) == (Box(1, 2, 30, 40), (), "Rejection")


@pytest.mark.parametrize("name", ["grefs(unc).json", "grefs(unc).p"])
def test_grefcoco_has_any_number_of_boxes(tmp_path: Path, name: str) -> None:
    files.grefcoco(tmp_path, name=name)
    opened = open_dataset("grefcoco/testA", data=tmp_path, allow_partial=True)
    truths = {sample.phrase: sample.truths for sample in opened}
    assert truths == {
        "both cups": (Box(1, 2, 11, 22), Box(30, 2, 40, 22)),
        "the dog": (),
        "right cup": (Box(30, 2, 40, 22),),
    }
    assert len(open_dataset(tmp_path / "grefcoco")) == 5  # by its folder, all splits


def test_negatives_of_finecops_are_told_by_their_rows(data: Path) -> None:
    for split, phrases in (("positive", 2), ("negative-text", 1), ("negative-image", 1)):
        opened = open_dataset(f"finecops-ref/{split}", data=data, allow_partial=True)
        assert len(opened) == phrases
        assert all((sample.truths == ()) == (split != "positive") for sample in opened)


@pytest.mark.parametrize("nothing", ["", " ", False, None])
def test_a_caption_that_is_said_to_be_wrong_in_no_way_is_right(data: Path, nothing: object) -> None:
    path = data / "finecops-ref" / "test_expression_pos_coco_format.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation |= {"negative_type": nothing, "negative_cate": nothing}
    path.write_text(json.dumps(content))
    opened = open_dataset("finecops-ref/positive", data=data, allow_partial=True)
    assert [sample.box for sample in opened] == [Box(1, 2, 11, 22)] * 2
    assert not any(key in sample.meta for sample in opened for key in ("negative_type", "negative_cate", "kind"))


def test_files_of_others_are_not_taken_for_a_benchmarks(data: Path) -> None:
    """Predictions, other splits and what systems leave lie beside it; what does fit its names has to be of its form."""
    splits = ("ref-adv-s/test", "groundingme/test", "refcoco-m/val", "finecops-ref/positive", "screenspot-pro/test")
    before = {split: len(open_dataset(split, data=data, allow_partial=True)) for split in splits}
    for name in ("ref-adv-s", "groundingme", "refcoco-m", "screenspot-pro", "ref-adv-s/data"):
        files.write_parquet(data / name / "mine.parquet", [{"x": 1}])
        files.write_parquet(data / name / "test-predictions.parquet", [{"x": 1}])
    for name in ("finecops-ref/test_coco_results.json", "finecops-ref/._test_expression_pos_coco_format.json"):
        files.write_json(data / name, [{"x": 1}])
    files.write_json(data / "screenspot-pro/annotations/._vscode_macos.json", [{"x": 1}])
    assert {split: len(open_dataset(split, data=data, allow_partial=True)) for split in splits} == before
    (data / "ref-adv-s" / "data" / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="no files of ref-adv-s/test"):
        open_dataset("ref-adv-s/test", data=data, allow_partial=True)
    row = {"image": "a.png", "sent": "x", "bbox": [1, 2, 3, 4]}
    other = files.write_json(data / "screenspot-pro/annotations/zed_macos.json", [row])
    with pytest.raises(
        DataError, match=r"zed_macos\.json holds .* rows, and .*vscode_macos.json ScreenSpot-Pro: leave"
    ):
        open_dataset("screenspot-pro/test", data=data, allow_partial=True)
    other.unlink()
    shard = data / "groundingme" / "data" / "test-00001-of-00002.parquet"
    files.write_parquet(shard, [{"sent": "x"}])
    with pytest.raises(DataError, match=r"test-00001-of-00002\.parquet lacks .*bbox.* that .*test-00000-of-00001"):
        open_dataset("groundingme/test", data=data, allow_partial=True)


def test_a_question_is_counted_once(data: Path) -> None:
    shots = data / "screenspot-pro" / "annotations"
    (shots / "copy_macos.json").write_text((shots / "vscode_macos.json").read_text())
    with pytest.raises(DataError, match=r"vscode_macos.json asks 'open file 0' as .*copy_macos.json does: keep one"):
        open_dataset("screenspot-pro/test", data=data, allow_partial=True)
    rows = json.loads((shots / "copy_macos.json").read_text())
    files.write_json(shots / "copy_macos.json", [{**row, "instruction": f"again {row['id']}"} for row in rows])
    with pytest.raises(DataError, match="has the id 'vscode_macos_0' twice"):
        open_dataset("screenspot-pro/test", data=data, allow_partial=True)
    texts = data / "finecops-ref" / "test_expression_neg_coco_format.json"
    copy = texts.with_name("test_expression_neg_2_coco_format.json")
    copy.write_text(texts.read_text())
    with pytest.raises(DataError, match="asks 'cup 3' as"):
        open_dataset("finecops-ref/negative-text", data=data, allow_partial=True)
    content = json.loads(copy.read_text())
    content["images"][0]["caption"] = "another cup"
    copy.write_text(json.dumps(content))
    both = open_dataset("finecops-ref/negative-text", data=data, allow_partial=True)
    assert [sample.id for sample in both] == [f"finecops-ref/negative-text/{number}" for number in (1, 2)]


@pytest.mark.parametrize(("facts", "said"), [({"negative_cate": "x"}, "'x'"), ({"negative_cate": None}, "None")])
def test_a_negative_of_no_split_is_refused(data: Path, facts: dict[str, object], said: str) -> None:
    path = data / "finecops-ref" / "test_expression_neg_coco_format.json"
    content = json.loads(path.read_text())
    content["annotations"][0] |= facts
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"is of no split of finecops-ref: its negative_cate is {said}, and nothing"):
        open_dataset("finecops-ref/positive", data=data, allow_partial=True)


def test_screenshots_are_asked_about_by_application(data: Path) -> None:
    opened = open_dataset("screenspot-pro/test", data=data, allow_partial=True)
    assert [sample.id for sample in opened] == ["vscode_macos_0", "vscode_macos_1", "word_macos_0", "word_macos_1"]
    assert (opened[0].box, opened[0].meta["kind"]) == (Box(10, 5, 20, 15), "icon")


def test_questions_about_one_picture_inside_a_file_share_it_though_nothing_names_it(tmp_path: Path) -> None:
    """Intervals are clustered by it, and engines read it once; whatever folder of other pictures is named."""
    shown = [files.picture(0), files.picture(0), files.picture(1)]
    kettles = [
        {"id": n, "description": f"kettle {n}", "image": each, "bbox": [1, 2, 30, 40], "subtask_l1": "Discriminative"}
        for n, each in enumerate(shown)
    ]
    files.write_parquet(tmp_path / "groundingme" / "data" / "test-00000-of-00001.parquet", kettles)
    buttons = [
        {"image": each, "id": f"a_{n}", "instruction": f"open {n}", "bbox": [1, 2, 30, 40], "img_size": [64, 48]}
        for n, each in enumerate(shown)
    ]
    files.write_parquet(tmp_path / "screenspot-pro" / "data" / "test-00000-of-00001.parquet", buttons)
    for split in ("groundingme/test", "screenspot-pro/test"):
        opened = open_dataset(split, data=tmp_path, images=tmp_path, allow_partial=True)
        first, second, other = (str(sample.image) for sample in opened.annotations())
        assert (first == second, first == other, first.startswith("picture-")) == (True, False, True)
        assert coco_number(first) is None
        planned, _ = plan_samples({split: opened})
        assert [cold for _, cold in image_order(planned, 8)] == [True, True, False]
        assert load_image(opened[1].image).getpixel((0, 0)) == (0, 0, 0)
    named = [{**row, "img_filename": f"app/{n}.png"} for n, row in enumerate(buttons)]
    files.write_parquet(tmp_path / "screenspot-pro" / "data" / "test-00000-of-00001.parquet", named)
    opened = open_dataset("screenspot-pro/test", data=tmp_path, images=tmp_path, allow_partial=True)
    assert [str(sample.image) for sample in opened.annotations()] == [f"app/{n}.png" for n in range(3)]
    lost = [{**row, "image": {"bytes": None, "path": "x"}} if n == 1 else row for n, row in enumerate(kettles)]
    files.write_parquet(tmp_path / "groundingme" / "data" / "test-00000-of-00001.parquet", lost)
    opened = open_dataset("groundingme/test", data=tmp_path, allow_partial=True)
    assert str(opened.annotations()[1].image) == "groundingme_1"
    with pytest.raises(DataError, match="row 2 has no picture"):
        opened[1]


def test_pictures_lie_in_a_folder_of_the_benchmarks_own_name(data: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for folder in ("train2014", "screenspot-pro/images", "ref-l4"):
        (pictures / folder).mkdir(parents=True)
    for split, folder in (("grefcoco/val", "train2014"), ("screenspot-pro/test", "screenspot-pro/images")):
        opened = open_dataset(split, data=data, images=pictures, allow_partial=True)
        assert opened.root == (pictures / folder).resolve()
    assert open_dataset("ref-l4/val", data=data, images=pictures, allow_partial=True).root == pictures / "ref-l4"
    (data / "hc-refloco" / "images").mkdir()  # as the files came
    assert open_dataset("hc-refloco/test", data=data).root == data / "hc-refloco" / "images"


def test_a_file_of_the_published_size_is_taken(tmp_path: Path) -> None:
    files.ref_adv(tmp_path, 1_142)
    assert len(open_dataset("ref-adv-s/test", data=tmp_path)) == 1_142 == split_size("ref-adv-s/test")


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("ref-adv-s/test", "3 questions instead of 1,142"),
        ("refcoco-m/val", "8 questions instead of 5,598, 2 pictures instead of 1,190"),
        ("ref-l4/test", "another hash than 6af2bcac60d0aff5"),
        ("ref-l4/all", "4 questions instead of 45,341"),
        ("grefcoco/testA", "1 questions that nothing matches instead of 4,448"),
        ("finecops-ref/negative-text", "1 questions instead of 9,814"),
        ("screenspot-pro/test", "4 questions instead of 1,581"),
    ],
)
def test_another_version_is_refused_with_its_counts_and_hash(data: Path, split: str, said: str) -> None:
    with pytest.raises(DataError, match="is another version of") as caught:
        open_dataset(split, data=data)
    message = str(caught.value)
    first = Path(message.partition(" is another version")[0])
    assert said in message
    assert f"its sha256 is {file_sha256(first)[:16]}" in message
    assert "--allow-partial" in message
    assert "\n" not in message


def test_files_that_are_not_there_are_named_with_where_they_are_had(tmp_path: Path) -> None:
    for benchmark in BENCHMARKS:
        with pytest.raises(DataError, match=f"no files of {benchmark.name}/") as caught:
            open_dataset(benchmark.names[0], data=tmp_path)
        assert benchmark.source in str(caught.value)
        assert benchmark.licence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("grefs(unc).json", [{"image_id": 7, "ann_id": [9], "sentences": []}], "row 1: has an ann_id 9"),
        ("grefs(unc).json", [{"image_id": 8, "ann_id": [1], "sentences": []}], "row 1: has an image_id 8"),
        ("grefs(unc).json", [{"image_id": 7, "ann_id": [], "sentences": []}], "-1 says that nothing matches"),
        ("grefs(unc).json", [{"image_id": 7, "ann_id": [True], "sentences": []}], "row 1: has an ann_id True"),
        (
            "grefs(unc).json",
            [{"image_id": 7, "ann_id": [1], "sentences": [{"sent": "cup \ud83d"}]}],
            "row 1: holds half a character ('\\ud83d')",
        ),
        ("grefs(unc).json", ["x"], "row 1: is not an object"),
        ("grefs(unc).json", {"refs": []}, "must hold a list of references"),
    ],
)
def test_bad_references_are_named(tmp_path: Path, name: str, content: object, said: str) -> None:
    files.grefcoco(tmp_path)
    (tmp_path / "grefcoco" / name).write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path / "grefcoco" / name)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotations": []}, "image 1: has no annotation"),
        ({"annotations": [{"bbox": [1, 2, 3, 4]}]}, "a.json annotation 1: has no image_id"),
        (
            {"annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}, {"image_id": 7, "bbox": [1, 2, 3, 4]}]},
            "a.json annotation 2: image_id 7 is not among the images",
        ),
        (
            {"annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}, {"image_id": 1, "bbox": [1, 2, 3, 4]}]},
            "has 2 boxes",
        ),
        ({"annotations": [{"image_id": 1, "bbox": [1, 2, 0, 4]}]}, "image 1: bbox"),
        (
            {"annotations": [{"image_id": 1, "empty": True}, {"image_id": 1, "bbox": [1, 2, 3, 4], "empty": False}]},
            "both that nothing matches",
        ),
    ],
)
def test_bad_captioned_files_are_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    shown = {"id": 1, "file_name": "a.jpg", "caption": "the cup", "width": 60, "height": 50}
    path = files.write_json(tmp_path / "a.json", {"images": [shown], "annotations": [], **change})
    with pytest.raises(DataError) as caught:
        open_dataset(path)
    assert said in str(caught.value)


def test_several_boxes_of_a_captioned_file_are_asked_for_together(tmp_path: Path) -> None:
    shown = [{"id": n, "file_name": "a.jpg", "caption": f"cups {n}", "width": 60, "height": 50} for n in (1, 2)]
    boxes = [
        {"image_id": 1, "bbox": [1, 2, 3, 4], "empty": False},
        {"image_id": 1, "bbox": [9, 2, 3, 4], "empty": False},
        {"image_id": 2, "bbox": [0, 0, 0, 0], "empty": True},
    ]
    path = files.write_json(tmp_path / "a.json", {"images": shown, "annotations": boxes})
    both, none = open_dataset(path)
    assert (both.truths, none.truths) == ((Box(1, 2, 4, 6), Box(9, 2, 12, 6)), ())
    assert {both.expect, none.expect} == {"all"}
