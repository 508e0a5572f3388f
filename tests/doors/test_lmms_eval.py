"""A task for lmms-eval, by its own functions; tests/integration/test_doors.py has lmms-eval run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from egm.codecs import get_codec
from egm.datasets import open_dataset
from egm.datasets.convert import save_pictures
from egm.datasets.dataset import Dataset
from egm.doors.lmms_eval import METRICS, doc_to_text, doc_to_visual, lmms_eval_task, process_results
from egm.errors import DataError, ImageError


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return save_pictures(open_dataset("synthref/test-amodal", first=3), tmp_path / "pictures")


class _Loader(yaml.SafeLoader):
    """Reads `!function` as the name that stands behind it, as lmms-eval's own does."""


_Loader.add_constructor("!function", lambda loader, node: node.value)


def test_the_task_and_its_rows(dataset: Dataset, tmp_path: Path) -> None:
    task = lmms_eval_task(dataset, tmp_path / "tasks" / "shapes.yaml", codec=get_codec("internvl"))
    written = yaml.load((tmp_path / "tasks" / "shapes.yaml").read_text(), Loader=_Loader)
    assert (task, written["task"], written["metadata"]["codec"]) == ("egm_shapes", "egm_shapes", "internvl")
    assert [metric["metric"] for metric in written["metric_list"]] == list(METRICS)
    rows = [json.loads(line) for line in Path(written["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()]
    for sample, row in zip(dataset, rows, strict=True):
        codec = get_codec("internvl")
        [message] = codec.messages(sample.phrase, amodal=sample.amodal)
        assert doc_to_text(row) == "".join(part.get("text", "") for part in message["content"])
        [picture] = doc_to_visual(row, written["lmms_eval_specific_kwargs"]["default"])
        assert picture.size == sample.size
        assert sample.box is not None
        assert sample.size is not None
        right = codec.turn(sample.phrase, sample.box, size=sample.size, rationale=None)
        assert process_results(row, [right])["acc@0.5"] == 1.0
        assert process_results(row, ["I see nothing."]) == {"acc@0.5": 0.0, "mean_iou": 0.0, "no_box": 1.0}


def test_what_can_be_read_stays_so(dataset: Dataset, tmp_path: Path) -> None:
    dataset.name = 'тест 🐈\x85\u2028\x7f"\\'
    folder = tmp_path / "дані"
    folder.mkdir()
    lmms_eval_task(dataset, folder / "shapes.yaml", codec=get_codec("qwen3_vl"))
    text = (folder / "shapes.yaml").read_text("utf-8")
    for words in ("тест 🐈", "дані/shapes.jsonl"):
        assert words in text
    written = yaml.load(text, Loader=_Loader)
    assert written["metadata"]["dataset"] == dataset.name
    assert written["dataset_kwargs"]["data_files"]["test"] == str(folder / "shapes.jsonl")


def test_an_answer_is_read_by_the_declared_codec_alone(dataset: Dataset, tmp_path: Path) -> None:
    lmms_eval_task(dataset, tmp_path / "shapes.yaml", codec=get_codec("qwen3_vl"))
    row = json.loads((tmp_path / "shapes.jsonl").read_text().splitlines()[0])
    sample = dataset[0]
    assert sample.box is not None
    pixels = [round(value) for value in sample.box]
    assert (
        process_results(row, [f'</think>[{{"bbox_2d": {pixels}}}]'])["acc@0.5"] == 0.0
    )  # 0-1000, whatever fits better
    assert process_results(row, [])["no_box"] == 1.0


def test_no_row_leads_out_of_the_folder_of_pictures(dataset: Dataset, tmp_path: Path) -> None:
    lmms_eval_task(dataset, tmp_path / "shapes.yaml", codec=get_codec("qwen3_vl"))
    row = json.loads((tmp_path / "shapes.jsonl").read_text().splitlines()[0])
    Image.new("RGB", (row["width"], row["height"])).save(tmp_path / "secret.png")
    folder = {"images": str(tmp_path / "pictures")}
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        with pytest.raises(ImageError, match="leads outside"):
            doc_to_visual({**row, "image": name}, folder)
    with pytest.raises(ImageError, match="when upright"):
        doc_to_visual({**row, "width": 5}, folder)


def test_what_cannot_be_a_task_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    codec = get_codec("qwen3_vl")
    with pytest.raises(DataError, match="cannot name a task"):
        lmms_eval_task(dataset, tmp_path / "a: b.yaml", codec=codec)
    with pytest.raises(DataError, match="--pictures DIR"):
        lmms_eval_task(open_dataset("synthref/val", first=1), tmp_path / "a.yaml", codec=codec)
    many = save_pictures(open_dataset("synthref/test-all", first=1), tmp_path / "all")
    with pytest.raises(DataError, match="expects all"):
        lmms_eval_task(many, tmp_path / "a.yaml", codec=codec)
