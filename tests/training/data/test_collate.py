"""Batches: token for token, pixel for pixel what the model's own processor makes, with a loss on the answer alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from egm.boxes import Box
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.errors import DataError, EgmError, ModelError
from egm.images import load_image
from egm.models import build_config, build_processor, get_preset
from egm.models.families.qwen_vl import expand_pixels
from egm.training.data import MixedRows, SynthRefRows, open_rows
from egm.training.data.collate import IGNORED, Collator
from egm.types import Sample

CONFIG = build_config(get_preset("tiny-s"))


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor()


def collator(processor: Any, **options: Any) -> Collator:
    return Collator(SynthRefRows(50, 0), processor, get_codec("qwen3_vl"), CONFIG, **options)


def odd(size: tuple[int, int]) -> Sample:
    """A picture that the processor has to resize."""
    image = Image.effect_noise(size, 80).convert("RGB")
    return Sample("odd", image, 'the "odd" one', Box(3, 4, 30, 40), size, amodal=True, rationale="It is there.")


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("prompt", [None, "grounding"])
def test_a_batch_is_what_the_processor_makes(processor: Any, thinking: bool, prompt: str | None) -> None:
    codec = get_codec("qwen3_vl")
    samples = [*SynthRef("train").samples(0), *SynthRef("train").samples(1)]
    samples += [odd((100, 75)), odd((900, 500)), odd((40, 300))]
    batch = collator(processor, thinking=thinking, prompt=prompt).collate(samples)
    mean, std = processor.image_processor.image_mean, processor.image_processor.image_std
    pixels = expand_pixels(batch["pixels"], mean=mean, std=std, temporal=2)
    start = 0
    for i, sample in enumerate(samples):
        messages = codec.messages(sample.phrase, amodal=sample.amodal, prompt=prompt)
        question = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert sample.box is not None and sample.size is not None  # noqa: PT018
        rationale = sample.rationale if thinking else None
        answer = codec.target(sample.phrase, sample.box, size=sample.size, rationale=rationale) + "<|im_end|>"
        asked = processor(text=[question], images=[sample.image], return_tensors="pt")
        told = processor.tokenizer(answer, return_tensors="pt")["input_ids"][0]
        whole = torch.cat([asked["input_ids"][0], told])
        ids, labels = batch["input_ids"][i], batch["labels"][i]
        assert torch.equal(ids[: len(whole)], whole)
        assert (ids[len(whole) :] == processor.tokenizer.pad_token_id).all()
        begin = len(whole) - len(told)
        assert torch.equal(labels[begin : len(whole)], told)
        assert (labels[:begin] == IGNORED).all()
        assert (labels[len(whole) :] == IGNORED).all()
        count = len(asked["pixel_values"])
        torch.testing.assert_close(pixels[start : start + count], asked["pixel_values"], atol=1e-5, rtol=0)
        assert list(batch["image_grid_thw"][i]) == asked["image_grid_thw"][0].tolist()
        start += count
    assert start == len(pixels)


def test_a_share_is_direct_and_each_is_asked_in_one_style(processor: Any) -> None:
    codec = get_codec("qwen3_vl")
    samples = [sample for index in range(30) for sample in SynthRef("train").samples(index)]
    made = collator(processor, direct=0.4, prompt=("grounding", "qwen3"))
    batch = made.collate(samples)
    again = made.collate(samples[::-1])
    seen = set()
    for i, sample in enumerate(samples):
        labels = batch["labels"][i]
        told = processor.tokenizer.decode(labels[labels != IGNORED])
        asked = processor.tokenizer.decode(batch["input_ids"][i][: int((labels != IGNORED).nonzero()[0])])
        assert sample.box is not None and sample.size is not None  # noqa: PT018
        whole = codec.target(sample.phrase, sample.box, size=sample.size, rationale=sample.rationale) + "<|im_end|>"
        bare = codec.target(sample.phrase, sample.box, size=sample.size) + "<|im_end|>"
        direct = asked.endswith("<think>\n</think>\n\n")
        assert told == (bare.removeprefix("</think>\n\n") if direct else whole)
        assert direct or asked.endswith("<think>\n")
        [style] = [
            style
            for style in ("grounding", "qwen3")
            if codec.messages(sample.phrase, amodal=sample.amodal, prompt=style)[0]["content"][1]["text"] in asked
        ]
        seen.add((style, direct))
        kept = again["input_ids"][len(samples) - 1 - i]  # wherever it stands, it is asked alike
        assert torch.equal(kept[kept != 0], batch["input_ids"][i][batch["input_ids"][i] != 0])
    assert len(seen) == 4
    share = sum(made._texts(sample, (1, 2, 2))[0].endswith("</think>\n\n") for sample in samples) / len(samples)
    assert 0.25 < share < 0.55


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_vl_instruct"])
def test_a_share_is_cut_off_as_a_thinking_budget_cuts(processor: Any, name: str) -> None:
    codec, rows = get_codec(name), SynthRefRows(5, 0)
    samples = [sample for index in range(20) for sample in SynthRef("train").samples(index)]
    made = Collator(rows, processor, codec, CONFIG, cut=0.5, max_length=2048)
    whole = Collator(rows, processor, codec, CONFIG, max_length=2048)
    shares = []
    for sample in samples:
        (asked, told), (prompt, target) = made._texts(sample, (1, 2, 2)), whole._texts(sample, (1, 2, 2))
        if asked == prompt:
            assert told == target
            continue
        reasoning, closed, answer = target.partition("</think>\n\n")
        begun = asked.removeprefix(prompt).removesuffix(closed)
        thought = begun.removesuffix("\n")
        assert reasoning.startswith(thought)
        assert told == answer
        forced = codec.answer_prefill(thought, sample.phrase)  # what a model is given whose time is over
        assert (begun + closed + told).startswith(thought + forced)
        shares.append(len(thought) / len(reasoning))
    assert 0.3 < len(shares) / len(samples) < 0.7
    assert min(shares) < 0.2 < 0.8 < max(shares)


def test_direct_needs_reasoning_that_the_template_opens(processor: Any) -> None:
    with pytest.raises(ModelError, match=r"data.direct is for models whose chat template opens <think>"):
        Collator(SynthRefRows(5, 0), processor, get_codec("qwen3_vl_instruct"), CONFIG, direct=0.5)
    with pytest.raises(EgmError, match="unknown prompt style 'groundin'"):
        collator(processor, prompt=("qwen3", "groundin"))


def test_rows_hold_all_phrases_of_a_scene(processor: Any) -> None:
    rows = SynthRefRows(50, 0)
    batch = collator(processor)([{"row": 3}, {"row": 5}])
    assert len(batch["input_ids"]) == len(rows[3]) + len(rows[5])
    assert batch["input_ids"].shape[1] % 32 == 0


def test_each_picture_is_loaded_and_cut_once_however_many_phrases_it_has(
    processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []

    def counted(source: Any) -> Image.Image:
        loaded.append(source)
        return load_image(source)

    monkeypatch.setattr("egm.training.data.pictures.load_image", counted)
    rows = []
    for name, size in (("a.png", (64, 64)), ("b.png", (100, 75))):  # the second has to be resized
        Image.effect_noise(size, 80).save(tmp_path / name)
        row = {"image": name, "bbox": [1, 2, 30, 40], "width": size[0], "height": size[1], "rationale": "It is there."}
        rows += [row | {"sent": f"phrase {n}"} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = [sample for number in range(6) for sample in open_rows(str(tmp_path / "rows.jsonl"), seed=0)[number]]
    batch = collator(processor).collate(samples)
    assert [Path(source).name for source in loaded] == ["a.png", "b.png"]
    assert len(batch["image_grid_thw"]) == 6
    pixels = batch["pixels"].split([rows * columns for _, rows, columns in batch["image_grid_thw"]])
    assert torch.equal(pixels[0], pixels[2])
    alone = collator(processor).collate(samples[5:])
    assert torch.equal(alone["pixels"], pixels[5])
    assert not torch.equal(pixels[0], pixels[5])


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        (Sample("a", Image.new("RGB", (64, 64)), "it", Box(1, 2, 30, 40), (64, 64)), "a has no rationale"),
        (Sample("b", Image.new("RGB", (64, 64)), "it", None, (64, 64), rationale="x"), "b has no box"),
        (Sample("c", Image.new("RGB", (64, 64)), "it", Box(1, 2, 3, 4), (64, 65), rationale="x"), "says its image is"),
        (Sample("d", Image.new("RGB", (64, 64)), "it", Box(1, 2, 3, 4), rationale="x " * 400), "over data.max_length"),
    ],
)
def test_a_sample_that_cannot_be_taught_is_named(processor: Any, sample: Sample, says: str) -> None:
    with pytest.raises(DataError, match=says):
        collator(processor, max_length=256).collate([sample])


def test_none_and_many_are_asked_and_taught(processor: Any) -> None:
    rows = SynthRefRows(20, 0, split="train-any")
    samples = [sample for row in range(6) for sample in rows[row]]
    assert {min(len(sample.truths or ()), 2) for sample in samples} == {0, 1, 2}
    codec = get_codec("qwen3_vl")
    batch = Collator(rows, processor, codec, CONFIG).collate(samples)
    for i, sample in enumerate(samples):
        assert sample.size is not None
        ids, labels = batch["input_ids"][i], batch["labels"][i]
        told = processor.tokenizer.decode(labels[labels != IGNORED])
        read = codec.parse(told.removesuffix("<|im_end|>"), size=sample.size, expect=sample.expect)
        assert read.repairs == ()
        assert [box.to_1000(sample.size) for box in read.answered] == [
            box.to_1000(sample.size) for box in sample.truths or ()
        ]
        assert read.reasoning == sample.rationale
        asked = processor.tokenizer.decode(ids)
        question = codec.messages(sample.phrase, expect=sample.expect)[0]["content"][-1]["text"]
        assert f"{question}<|im_end|>" in asked


def test_what_a_family_cannot_answer_is_not_taught(processor: Any) -> None:
    rows, codec, said = SynthRefRows(20, 0, split="train-any"), get_codec("internvl"), "no answer for 'nothing matches'"
    with pytest.raises(EgmError, match=said):  # before a step is taken
        Collator(MixedRows([SynthRefRows(20, 0), rows], [1, 1]), processor, codec, CONFIG)
    nothing = next(sample for row in range(9) for sample in rows[row] if not sample.truths)
    with pytest.raises(EgmError, match=said):
        Collator(SynthRefRows(20, 0), processor, codec, CONFIG).length(nothing)
