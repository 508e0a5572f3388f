"""`egm grpo` on families without a fast path: the library's generate and forward, and the gradient of the formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from egm.datasets.synthetic import SynthRef
from egm.models.decode.decoder import BatchDecoder
from egm.models.decode.library import LibraryDecoder
from egm.models.fast.enable import enable_fast_path
from egm.training.grpo.decoder import make_decoder
from egm.training.grpo.prompts import PromptCollator
from egm.training.grpo.run import make_trainer
from egm.training.recipe import ModelSection
from egm.training.shared.model import make_codec, open_model

from ...families import processor_of, random_model
from .test_gradient import compare, recipe_of, train
from .test_run import CODEC, Digits, toy

pytestmark = pytest.mark.usefixtures("on_cpu")

LIBRARY = ("internvl", "qwen3_5", "qwen2_5_vl", "qwen3_5_moe")
STOPS = 40
"""Ordinary tokens that end an answer too, so that answers of random weights have several lengths."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: checkpoint(name, tmp_path_factory.mktemp(name)) for name in LIBRARY}


def checkpoint(model_type: str, folder: Path) -> Path:
    model, processor = random_model(model_type), processor_of(model_type)
    model.generation_config.eos_token_id = [*model.generation_config.eos_token_id, *range(600, 600 + STOPS)]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("model_type", LIBRARY)
def test_a_step_has_the_gradient_of_the_formula(model_type: str, folders: dict[str, Path], tmp_path: Path) -> None:
    recipe = recipe_of(folders[model_type], optim={"loss": "dapo", "accumulation": 2, "kl": 0.1})
    model, processor = open_model(recipe.model, seed=0)
    run = train(recipe, tmp_path / "run", make_codec(model.config, processor))
    answers = compare(recipe, run)
    assert len({len(answer.tokens) for answer in answers}) > 2
    assert {answer.ended for answer in answers} == {True, False}


@pytest.mark.parametrize("model_type", LIBRARY)
def test_greedy_rollouts_are_the_librarys_one_by_one(model_type: str, folders: dict[str, Path], tmp_path: Path) -> None:
    recipe = recipe_of(folders[model_type], optim={}, rows=2)
    trainer = make_trainer(recipe, tmp_path / "run", reward=Digits())
    prompts = trainer._prefetcher.get([0, 1, 4])
    found = trainer.decoder(prompts, 1, max_new_tokens=6, temperature=0.0)
    model = AutoModelForImageTextToText.from_pretrained(folders[model_type]).eval()
    processor = AutoProcessor.from_pretrained(folders[model_type])
    codec = make_codec(model.config, processor)
    banned = [model.config.image_token_id, *filter(None, [getattr(model.config, "video_token_id", None)])]
    for sample, own in zip(prompts.samples, found, strict=True):
        text = processor.apply_chat_template(
            codec.messages(sample.phrase, amodal=sample.amodal), tokenize=False, add_generation_prompt=True
        )
        inputs = processor(text=[text], images=[sample.image], return_tensors="pt")
        whole = model.generate(**inputs, max_new_tokens=6, do_sample=False, suppress_tokens=banned)
        assert own == whole[0, inputs["input_ids"].shape[1] :].tolist()
    assert len(set(map(tuple, found))) == 3


def test_the_librarys_generate_draws_what_the_fast_decoder_draws() -> None:
    model, processor = open_model(ModelSection(name=str(toy().model.name)), seed=0)
    enable_fast_path(model)
    prompts = PromptCollator(processor, CODEC, None)(SynthRef("val").samples(0)[:2] + SynthRef("val").samples(1)[:1])
    stops = [processor.tokenizer.eos_token_id]
    drawn: list[list[list[int]]] = []
    for engine, kind in (("batched", BatchDecoder), ("transformers", LibraryDecoder)):
        decoder = make_decoder(model, processor, stops, toy(rollout={"engine": engine, "rows": 4}), bf16=False)
        assert type(decoder) is kind
        torch.manual_seed(0)
        options: dict[str, Any] = {"max_new_tokens": 12, "temperature": 2.0, "top_p": 0.9, "top_k": 50}
        drawn.append(decoder(prompts, 3, until=processor.tokenizer.convert_tokens_to_ids([","]), **options))
    assert drawn[0] == drawn[1]
    assert len({len(ids) for ids in drawn[0]}) > 1
