"""Newer bases in this process: the library's own forward and generate, asked in batches, evaluated and exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from egm.backends import GenerationSettings
from egm.cli import app
from egm.codecs import get_codec
from egm.errors import ModelError
from egm.grounder import Grounder
from egm.models import is_fast
from egm.publish.export import export_model
from egm.types import Sample

from ..families import MODEL_TYPES, processor_of, random_checkpoint, random_model

TOKENS = 10
CODECS = {"qwen2_5_vl": "qwen2_5_vl", "internvl": "internvl"}


def questions() -> list[Sample]:
    """Three questions about two pictures of different sizes, of different lengths."""
    one, two = (Image.radial_gradient("L").resize(size).convert("RGB") for size in ((320, 96), (128, 160)))
    return [Sample("a", one, "the cup"), Sample("b", two, "a large dark square thing"), Sample("c", one, "x")]


def by_the_library(folder: Path, sample: Sample, codec: str) -> str:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    messages = get_codec(codec).messages(sample.phrase)
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[sample.image], return_tensors="pt")
    banned = [model.config.image_token_id, *filter(None, [getattr(model.config, "video_token_id", None)])]
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, suppress_tokens=banned)[0]
    answer = ids[inputs["input_ids"].shape[1] :].tolist()
    stops = model.generation_config.eos_token_id
    return str(processor.tokenizer.decode(answer[:-1] if answer[-1] in stops else answer))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_batch_answers_greedily_as_the_library_does_one_by_one(model_type: str) -> None:
    folder, codec = random_checkpoint(model_type), CODECS.get(model_type, "qwen3_vl")
    settings = GenerationSettings(max_new_tokens=TOKENS)
    with Grounder.load(folder, device="cpu", settings=settings, batch_size=3) as grounder:
        assert grounder.codec.name == codec  # egm-tiny's template opens <think>
        assert is_fast(grounder.backend.module) == (model_type == "qwen3_vl_moe")  # type: ignore[attr-defined]
        texts = [result.text for result in grounder.ground_many(questions(), progress=False)]
    assert texts == [by_the_library(folder, sample, codec) for sample in questions()]
    assert len(set(texts)) == 3


def test_boxes_in_pixels_are_read_by_the_size_that_the_model_saw() -> None:
    with Grounder.load(random_checkpoint("qwen2_5_vl"), device="cpu") as grounder:
        request = grounder.request(_loaded(grounder, Image.new("RGB", (640, 480))))
        [reply] = grounder.backend.generate([request], GenerationSettings(max_new_tokens=1))
    assert reply.seen_size == (308, 224)  # 280 x 280 pixels at most, both sides multiples of 28


def _loaded(grounder: Grounder, image: Image.Image) -> Any:
    from egm.questions import LoadedQuestion

    return LoadedQuestion(0, image, "the cup", False, image)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_command_line_grounds_evaluates_and_exports(model_type: str, tmp_path: Path) -> None:
    folder, run = random_checkpoint(model_type), CliRunner().invoke
    Image.new("RGB", (96, 64), "red").save(tmp_path / "a.png")
    given = ["--model", str(folder), "--device", "cpu", "--max-tokens", "3"]
    asked = run(app, ["ground", str(tmp_path / "a.png"), "the red one", *given, "--json"])
    assert json.loads(asked.stdout)["failure"] == "truncated", asked.output
    out = ["--out", str(tmp_path / "eval")]
    done = run(app, ["eval", "synthref/val", "--limit", "2", *given, *out])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "eval" / "journal.jsonl").read_text().splitlines()]
    assert sum("failure" in line for line in lines) == 2


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_an_export_answers_as_its_source(model_type: str, tmp_path: Path) -> None:
    source = random_checkpoint(model_type)
    out = export_model(source, tmp_path / "out", dtype="float32")
    card = (out / "README.md").read_text()
    assert CODECS.get(model_type, "qwen3_vl") in card
    texts = []
    for folder in (source, out):
        settings = GenerationSettings(max_new_tokens=TOKENS)
        with Grounder.load(folder, device="cpu", dtype="float32", settings=settings) as grounder:
            texts.append([result.text for result in grounder.ground_many(questions(), progress=False)])
    assert texts[0] == texts[1]


def other_patches(folder: Path) -> None:
    processor_of("qwen2_5_vl").save_pretrained(folder)


def other_tokens(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_text(file.read_text().replace("<|image_pad|>", "<IMG_CONTEXT>"))


def other_numbers(folder: Path) -> None:
    _configure(folder, image_token_id=7)


def more_tokens(folder: Path) -> None:
    processor = processor_of("qwen3_5")
    processor.tokenizer.add_tokens([f"word{number}" for number in range(1000)])
    processor.save_pretrained(folder)


def _configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (other_patches, r"the processor makes patches of 14 pixels, the model takes patches of 16 pixels"),
        (other_tokens, r"<\|image_pad\|> is \d\d\d in the tokenizer, and 12 in the model"),
        (other_numbers, r"<\|image_pad\|> is 12 in the tokenizer, and 7 in the model"),
        (more_tokens, r"the tokenizer has 1,\d+ tokens, the model 768"),
    ],
)
def test_a_processor_of_another_checkpoint_is_refused(spoil: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(random_checkpoint("qwen3_5"), tmp_path / "mixed"))
    spoil(folder)
    with pytest.raises(ModelError, match=rf"processor and the weights of .*mixed' do not belong together: {says}; "):
        Grounder.load(folder, device="cpu")


def other_tiles(folder: Path) -> None:
    _processor(folder, lambda content: content["image_processor"]["size"].update(height=448, width=448))


def other_counts(folder: Path) -> None:
    _processor(folder, lambda content: content.update(image_seq_length=256))


def other_kind(folder: Path) -> None:
    processor_of("qwen3_vl").save_pretrained(folder)


def no_marks(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_text(file.read_text().replace("<ref>", "<rex>"))


def later_tokens(folder: Path) -> None:
    _configure(folder, image_token_id=666)


def _processor(folder: Path, spoil: Callable[[Any], object]) -> None:
    file = folder / "processor_config.json"
    content = json.loads(file.read_text())
    spoil(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (other_tiles, "the processor cuts tiles of 448 x 448 pixels, the model takes 160 x 160"),
        (other_counts, "the processor writes 256 tokens for a tile, the model makes 25"),
        (other_kind, "a Qwen3VLProcessor cuts no tiles, and the model takes them"),
        (no_marks, "the tokenizer has no <ref>, and the model's questions and answers are written with it"),
        (later_tokens, "<IMG_CONTEXT> is 667 in the tokenizer, and 666 in the model"),
    ],
)
def test_a_processor_of_another_internvl_is_refused(spoil: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(random_checkpoint("internvl"), tmp_path / "mixed"))
    spoil(folder)
    with pytest.raises(ModelError, match=rf"processor and the weights of .*mixed' do not belong together: {says}; "):
        Grounder.load(folder, device="cpu")


@pytest.mark.parametrize("rows", [674, 673])
def test_only_a_mark_for_videos_may_lack_its_row(rows: int, tmp_path: Path) -> None:
    """As published, InternVL3 has a row fewer than its tokenizer has tokens."""
    random_model("internvl", vocabulary=rows).save_pretrained(tmp_path)
    processor_of("internvl").save_pretrained(tmp_path)
    if rows == 674:
        Grounder.load(tmp_path, device="cpu").close()
        return
    with pytest.raises(ModelError, match="the tokenizer has 675 tokens, the model 673"):
        Grounder.load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("file", "spoil", "says"),
    [
        ("config.json", lambda content: content["vision_config"].update(patch_size=[0, 0]), "patch_size 0, which is"),
        ("processor_config.json", lambda content: content["image_processor"].update(max_patches=10**6), "1,000,000 ti"),
    ],
)
def test_tiles_that_no_model_has_are_refused(
    file: str, spoil: Callable[[Any], object], says: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(random_checkpoint("internvl"), tmp_path / "spoilt"))
    content = json.loads((folder / file).read_text())
    spoil(content)
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(ModelError, match=says):
        Grounder.load(folder, device="cpu")


def test_internvl_beside_a_tokenizer_of_qwen_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(random_checkpoint("internvl"), tmp_path / "mixed"))
    processor_of("qwen3_vl").tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"the processor of .*mixed' does not load \(.*start_image_token.*: copy all"):
        Grounder.load(folder, device="cpu")


def test_qwen_beside_a_processor_of_internvl_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(random_checkpoint("qwen3_5"), tmp_path / "mixed"))
    processor_of("internvl").save_pretrained(folder)
    with pytest.raises(ModelError, match="<IMG_CONTEXT> is 667 in the tokenizer, and 12 in the model"):
        Grounder.load(folder, device="cpu")
