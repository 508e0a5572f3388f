"""`egm grpo` on families without a fast path: the library's generate and forward, and the gradient of the formulas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.errors import EgmError
from egm.models.decode.decoder import BatchDecoder
from egm.models.decode.library import LibraryDecoder
from egm.models.fast.enable import enable_fast_path
from egm.publish.merge import load_merged
from egm.training.grpo.decoder import make_decoder
from egm.training.grpo.prompts import PromptCollator
from egm.training.grpo.recipe import GRPORecipe
from egm.training.grpo.rollouts import read_rollouts
from egm.training.grpo.run import check_grpo, make_trainer, run_grpo
from egm.training.recipe import ModelSection
from egm.training.shared.model import make_codec, open_model, save_trained

from ...families import processor_of, random_model
from ..shallow import shallow_model
from .test_gradient import Digits as Vowels
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


def test_an_adapter_draws_its_own_rollouts_and_is_merged(folders: dict[str, Path], tmp_path: Path) -> None:
    lora = {"rank": 2, "modules": ["q_proj", "v_proj"], "full": ["projector"]}
    recipe = recipe_of(folders["internvl"], optim={"learning_rate": 0.1, "kl": 0.1})
    recipe = GRPORecipe.model_validate(
        recipe.model_dump() | {"model": {"name": str(folders["internvl"]), "lora": lora}}
    )
    trainer = make_trainer(recipe, tmp_path / "run", reward=Vowels(get_codec("internvl")))
    prompts = trainer._prefetcher.get([0, 1, 4])
    before = trainer.decoder(prompts, 1, max_new_tokens=6, temperature=0.0)
    trainer.train()
    after = trainer.decoder(prompts, 1, max_new_tokens=6, temperature=0.0)
    assert before != after
    save_trained(trainer, trainer.processing_class, tmp_path / "adapter")
    merged, processor = load_merged(tmp_path / "adapter")
    stops = trainer.eos_token_ids
    assert (
        make_decoder(merged, processor, stops, recipe, bf16=False)(prompts, 1, max_new_tokens=6, temperature=0.0)
        == after
    )


def test_a_copy_in_another_type_writes_by_its_own_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    trainer = make_trainer(recipe_of(folders["internvl"], optim={}), tmp_path / "run", reward=Digits())
    plain, processor = open_model(trainer._recipe.model, seed=0)
    heads: list[Any] = []
    trainer.model.lm_head.register_forward_hook(lambda head, *_: heads.append(head))  # the copy gets it too
    prompts = trainer._prefetcher.get([0, 1, 4])
    answers = [
        make_decoder(model, processor, trainer.eos_token_ids, trainer._recipe, bf16=True)(
            prompts, 1, max_new_tokens=6, temperature=0.0
        )
        for model in (trainer.model, plain.to(torch.bfloat16))
    ]
    assert heads
    assert trainer.model.lm_head not in heads
    assert answers[0] == answers[1]


def test_a_run_that_could_not_learn_is_refused_before_it_begins(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(EgmError, match=r"^preflight: of 16 rollouts .* cut off by rollout\.max_new_tokens 2 "):
        check_grpo(recipe_of(folders["internvl"], optim={}, max_new_tokens=2), tmp_path / "run")


def test_without_the_fast_path_a_run_is_the_same(tmp_path: Path) -> None:
    logs, texts = [], []
    for fast in (True, False):
        recipe = toy(rollout={"temperature": 3.0}, optim={"learning_rate": 1e-3}, run={"fast_path": fast})
        out = tmp_path / str(fast)
        run_grpo(recipe, out, check=False, reward=Digits())
        texts.append([rollout["text"] for rollout in read_rollouts(out / "rollouts")])
        logs.append([json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()])
    assert texts[0] == texts[1]
    for name in ("grad_norm", "entropy", "reward"):
        one, two = ([line[name] for line in log if name in line] for log in logs)
        assert one == pytest.approx(two, rel=1e-3)
        assert len(one) == 2


def test_the_librarys_generate_draws_what_the_fast_decoder_draws() -> None:
    model, processor = open_model(ModelSection(name=str(shallow_model())), seed=0)
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
