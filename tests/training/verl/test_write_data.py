"""The questions of a run as parquet: those of `egm grpo`, in its order."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from egm.codecs import get_codec
from egm.datasets import open_dataset
from egm.datasets.rl_rows import write_rl_rows
from egm.datasets.synthetic import SynthRef
from egm.errors import DataError, EgmError
from egm.images import load_image
from egm.models import build_processor
from egm.training.grpo.prompts import PromptCollator
from egm.training.grpo.run import open_table
from egm.training.verl.follow import Questions
from egm.training.verl.policy import AskedModel
from egm.training.verl.write_data import write_questions
from egm.types import Sample

from .recipes import recipe


def rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def test_the_questions_are_those_of_egm_grpo(tmp_path: Path) -> None:
    made = recipe(eval={"samples": 3}, optim={"steps": 2, "updates": 2})
    count = write_questions(made, AskedModel(made), tmp_path)
    table = open_table(made)
    written = rows(tmp_path / "train.parquet")
    assert count == len(written) == 8  # one rollout
    for number, row in enumerate(written):
        sample = table[number]
        assert (row["extra_info"]["id"], row["extra_info"]["sent"]) == (sample.id, sample.phrase)
        assert row["reward_model"]["ground_truth"] == list(sample.box or ())
        [picture] = row["images"]
        assert load_image(picture["bytes"]).tobytes() == load_image(sample.image).tobytes()
        assert (picture["min_pixels"], picture["max_pixels"]) == (4096, 112_896)
    assert [row["extra_info"]["id"] for row in rows(tmp_path / "val.parquet")] == [
        sample.id for sample in open_dataset("synthref/val", first=3)
    ]


def test_a_list_of_one_source_is_that_source(tmp_path: Path) -> None:
    made = recipe(
        data={"train": [{"name": "synthref/train-complex", "weight": 2, "expect": "one"}]}, optim={"steps": 1}
    )
    assert write_questions(made, AskedModel(made), tmp_path) == 8
    written, table = rows(tmp_path / "train.parquet"), open_table(made)
    assert [row["extra_info"]["sent"] for row in written] == [table[number].phrase for number in range(8)]
    assert {row["data_source"] for row in written} == {"egm/synthref/train-complex"}


def test_a_question_that_is_asked_again_gets_an_id_of_its_own(tmp_path: Path) -> None:
    made = recipe(data={"train": [{"name": "synthref/train-complex", "weight": 2}]}, optim={"steps": 1})
    write_questions(made, AskedModel(made), tmp_path)
    table = open_table(made)
    asked = [table[number].id for number in range(8)]
    [twice] = {name for name in asked if asked.count(name) > 1}  # its scene has too few phrases
    first = asked.index(twice)
    again = asked.index(twice, first + 1)
    questions = Questions(tmp_path / "train.parquet")  # as the run is followed by
    assert [questions.sample(number).id for number in (first, again)] == [twice, f"{twice}#2"]
    assert questions.sample(first).phrase == questions.sample(again).phrase


def test_lengths_are_those_of_the_prompts() -> None:
    made = recipe()
    asked, samples = AskedModel(made), list(SynthRef("val", scenes=3))
    ids = PromptCollator(build_processor(), get_codec("qwen3_vl"), None)(samples).ids
    for sample, tokens in zip(samples, map(len, ids), strict=True):
        assert sample.size is not None
        AskedModel(recipe(rollout={"max_prompt": tokens})).check_length(sample, sample.size)
        with pytest.raises(DataError, match=f"takes {tokens} tokens, and there is room for {tokens - 1} "):
            AskedModel(recipe(rollout={"max_prompt": tokens - 1})).check_length(sample, sample.size)
    assert asked.policy.patch == 16


def test_styles_are_asked_and_unknown_ones_refused(tmp_path: Path) -> None:
    made = recipe(data={"prompt": "grounding"})
    write_questions(made, AskedModel(made), tmp_path)
    assert "Please provide" in rows(tmp_path / "train.parquet")[0]["prompt"][0]["content"]
    with pytest.raises(EgmError, match="unknown prompt style 'groundin'"):
        AskedModel(recipe(data={"prompt": "groundin"}))


def test_pictures_that_are_no_files_have_no_names(tmp_path: Path) -> None:
    made = recipe()
    with pytest.raises(DataError, match="leave --absolute out"):
        write_questions(made, AskedModel(made), tmp_path, absolute=True)


def files(folder: Path) -> Path:
    """Twelve rows about pictures that are files."""
    Image.new("RGB", (64, 48), "red").save(folder / "a.jpg")
    row = {"image": "a.jpg", "sent": "the cup", "bbox": [1, 2, 30, 40], "width": 64, "height": 48}
    (folder / "rows.jsonl").write_text("".join(json.dumps(row | {"id": str(n)}) + "\n" for n in range(12)))
    return folder / "rows.jsonl"


@pytest.mark.parametrize("absolute", [False, True])
def test_pictures_are_inside_or_named(tmp_path: Path, absolute: bool) -> None:
    made = recipe(data={"train": str(files(tmp_path))})
    write_questions(made, AskedModel(made), tmp_path / "data", absolute=absolute)
    for row in rows(tmp_path / "data" / "train.parquet"):
        [picture] = row["images"]
        assert ("image" in picture, "bytes" in picture) == (absolute, not absolute)
        assert picture.get("image", str(tmp_path / "a.jpg")) == str(tmp_path / "a.jpg")
        assert picture.get("bytes", b"") in (b"", (tmp_path / "a.jpg").read_bytes())
    opened = open_dataset(tmp_path / "data" / "train.parquet", images=tmp_path)
    assert len({str(sample.image) for sample in opened.annotations()}) == 1  # of which all rows are
    read = list(opened)
    assert {load_image(sample.image).size for sample in read} == {(64, 48)}


@pytest.mark.parametrize("mode", ["RGBA", "L", "turned", "PNG"])
def test_pictures_inside_are_what_egm_sees(tmp_path: Path, mode: str) -> None:
    picture, exif = Image.radial_gradient("L").resize((60, 40)).convert("RGB"), Image.Exif()
    path = tmp_path / ("a.png" if mode in ("RGBA", "PNG") else "a.jpg")
    if mode in ("RGBA", "L"):
        picture = picture.convert(mode)
    if mode == "RGBA":
        picture.putalpha(128)
    if mode == "turned":
        exif[274] = 6
    picture.save(path, exif=exif)
    sample = Sample("1", path, "it", open_dataset("synthref/val", first=1)[0].box, None)
    count = write_rl_rows(
        [sample], tmp_path / "x.parquet", source="x", codec=get_codec("qwen3_vl"), prompt=None, embed=True
    )
    [row] = rows(tmp_path / "x.parquet")
    inside = Image.open(io.BytesIO(row["images"][0]["bytes"])).convert("RGB")  # what verl does
    assert count == 1
    assert inside.tobytes() == load_image(path).tobytes()
    assert (row["extra_info"]["width"], row["extra_info"]["height"]) == load_image(path).size


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    good, bare = open_dataset("synthref/val", first=2)
    samples = [good, Sample(bare.id, bare.image, bare.phrase)]
    with pytest.raises(DataError, match=re.escape(f"{bare.id} has no box")):
        write_rl_rows(samples, tmp_path / "x.parquet", source="x", codec=get_codec("qwen3_vl"), embed=True)
    assert list(tmp_path.iterdir()) == []
