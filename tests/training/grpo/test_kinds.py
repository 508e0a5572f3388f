"""Other ways to reinforce: an adapter, TRL's own generation, vLLM; and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from egm.backends.checkpoint import find_checkpoint
from egm.datasets.synthetic import SynthRef
from egm.errors import BackendError, DataError, EgmError, ModelError, RecipeError
from egm.models import build_processor
from egm.models.decode.decoder import BatchDecoder
from egm.models.fast.enable import enable_fast_path
from egm.publish.merge import load_merged
from egm.training.grpo import run as grpo
from egm.training.grpo.decoder import make_decoder
from egm.training.grpo.prompts import PromptCollator
from egm.training.grpo.rollouts import read_rollouts
from egm.training.grpo.run import make_trainer, rows_per_pass, run_grpo, trl_arguments
from egm.training.grpo.vllm import PictureTokens, checked_generate
from egm.training.recipe import ModelSection, dump_recipe
from egm.training.sft.recipe import SFTRecipe
from egm.training.sft.run import run_sft
from egm.training.shared.model import open_model

from ...families import random_checkpoint
from ..shallow import shallow_model
from .test_run import CODEC, Digits, toy

LIVELY = {"temperature": 3.0, "keep": 0}


def test_an_adapter_goes_on_after_a_stop_and_is_saved_alone(tmp_path: Path) -> None:
    recipe = toy(
        model={"lora": {"rank": 2}}, rollout=LIVELY, optim={"learning_rate": 1e-3, "kl": 0.1, "steps": 3, "prompts": 2}
    )
    told = Digits(lambda: None, lambda: signal.raise_signal(signal.SIGTERM))
    assert run_grpo(recipe, tmp_path / "a", check=False, reward=told) is None
    folder = run_grpo(recipe, tmp_path / "a", resume=True, reward=Digits())
    whole = run_grpo(recipe, tmp_path / "b", check=False, reward=Digits())
    assert folder == tmp_path / "a" / "adapter"
    assert whole is not None
    assert not [path.name for path in folder.iterdir() if path.is_dir()]
    weights = load_file(folder / "adapter_model.safetensors")
    assert max(float(value.abs().max()) for name, value in weights.items() if "lora_B" in name) > 0
    for name, value in load_file(whole / "adapter_model.safetensors").items():
        torch.testing.assert_close(weights[name], value)
    log = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert log[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert load_merged(folder)[0].config.model_type == "qwen3_vl"


KILLED = """
import os, signal, sys
from pathlib import Path
from egm.codecs import get_codec
from egm.training.grpo.run import run_grpo
from egm.training.grpo.recipe import GRPORecipe
from egm.training.recipe import load_recipe
from egm.training.rewards.reward import Reward, RewardSection

class Kill(Reward):
    def grade(self, texts, **columns):
        if (out / "checkpoints" / "checkpoint-1").exists():  # in the second step
            os.kill(os.getpid(), signal.SIGKILL)
        return super().grade(texts, **columns)

recipe, out = sys.argv[1], Path(sys.argv[2])
run_grpo(load_recipe(GRPORecipe, recipe), out, check=False, reward=Kill(RewardSection(), get_codec("qwen3_vl")))
"""


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("family", ["qwen3_vl", "internvl"])
def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path: Path, warm_start: dict[str, str], family: str) -> None:
    recipe = toy(model={"name": str(random_checkpoint(family))}, rollout={"keep": 2, "temperature": 3.0})
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    out, whole = tmp_path / "killed", tmp_path / "whole"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "recipe.yaml"), str(out)],
        env=os.environ | warm_start | {"CUDA_VISIBLE_DEVICES": ""},
        stderr=subprocess.PIPE,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert not (out / "model").exists()
    assert "<p>2 of 2 groups." in (out / "rollouts.html").read_text()  # as it was at the checkpoint
    assert run_grpo(recipe, out, resume=True) == out / "model"
    run_grpo(recipe, whole, check=False)
    ours, theirs = (list(read_rollouts(folder / "rollouts")) for folder in (out, whole))
    assert [rollout["text"] for rollout in ours] == [rollout["text"] for rollout in theirs]
    assert {rollout["step"] for rollout in ours} == {1, 2}


def test_the_librarys_generation(tmp_path: Path) -> None:
    reward = Digits()
    recipe = toy(model={"name": str(shallow_model())}, rollout=LIVELY | {"engine": "transformers"})
    run_grpo(recipe, tmp_path / "run", check=False, reward=reward)
    assert len(reward.seen) == 2
    log = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert log["grad_norm"] > 0


class Server:
    """Answers in vLLM's place, with the same model; keeps what it was sent and shown."""

    trainer: Any  # is made after it

    def __init__(self, mode: str, placeholder: int) -> None:
        self.mode, self.placeholder, self.vllm_client = mode, placeholder, self
        self.synced, self.sent, self.shown = 0, [], []

    def get_server_info(self) -> Any:
        return {"model_config": {"logprobs_mode": "processed_logprobs"}}

    def sync_weights(self) -> None:
        self.synced += 1

    def generate(self, *, prompts: Any, images: Any, num_generations: int, profiler: Any) -> tuple[Any, Any, Any, Any]:
        del profiler
        self.sent.append(prompts)
        self.shown.append([np.asarray(image) for [image] in images])
        if self.mode == "colocate":  # all that stands for a picture, in the place of the placeholder of each
            asked, processor = self.trainer._prompts, self.trainer.processing_class
            whole = [self.trainer._family.placeholders(processor, asked.grids[picture]) for picture in asked.pictures]
            tokens = [ids for ids in processor.tokenizer(whole)["input_ids"] for _ in range(num_generations)]
            prompts = [
                [own for token in ids for own in (picture if token == self.placeholder else [token])]
                for ids, picture in zip(prompts, tokens, strict=True)
            ]
        answers = self.trainer.decoder(
            self.trainer._prompts, num_generations, max_new_tokens=8, temperature=self.trainer.temperature
        )
        return prompts, answers, [[[float("nan")]] * len(answer) for answer in answers], None


@pytest.mark.parametrize(
    ("mode", "family"),
    [("server", "qwen3_vl"), ("colocate", "qwen3_vl"), ("colocate", "internvl")],
)
def test_vllm_is_shown_the_picture_of_each_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, family: str
) -> None:
    monkeypatch.setattr(
        "trl.trainer.grpo_trainer.VLLMGeneration",
        lambda *, mode, processing_class, **options: Server(mode, processing_class.image_token_id),
    )
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "vllm" or find_spec(name))
    folder = shallow_model() if family == "qwen3_vl" else random_checkpoint(family)
    recipe = toy(model={"name": str(folder)}, rollout=LIVELY | {"engine": f"vllm-{mode}"})
    trainer = make_trainer(recipe, tmp_path / "run", reward=Digits())
    monkeypatch.undo()
    server = trainer.vllm_generation
    server.trainer = trainer
    trainer.train()
    assert (server.mode, server.synced, len(server.shown)) == (mode, 2, 2)
    own = [ids for ids in trainer._prompts.ids for _ in range(4)]
    counts = [ids.count(server.placeholder) for ids in server.sent[-1]]
    assert counts == ([1] * len(own) if mode == "colocate" else [ids.count(server.placeholder) for ids in own])
    asked = [np.asarray(sample.image) for sample in trainer._prompts.samples for _ in range(4)]
    assert all(np.array_equal(one, two) for one, two in zip(server.shown[-1], asked, strict=True))
    assert max(entry.get("grad_norm", 0) for entry in trainer.state.log_history) > 0
    assert trainer.state.log_history[0]["sampling/left_out"] == 0


def test_other_prompts_than_were_sent_end_the_run() -> None:
    def generate(*, prompts: Any, **kwargs: Any) -> Any:
        return [[*prompts[0], 7], *prompts[1:]], None, None, None

    with pytest.raises(BackendError, match="vLLM answered other prompts"):
        checked_generate(generate, None)(prompts=[[1], [2]])


def test_vllm_is_sent_one_placeholder_a_picture_where_it_writes_the_others_itself() -> None:
    def engine(*, prompts: Any) -> Any:
        return [[own for token in ids for own in ([9] * 3 if token == 9 else [token])] for ids in prompts], None

    asked, token = [[1, 9, 9, 9, 2], [9, 9, 9, 2, 2, 9, 9, 9]], PictureTokens(9)
    assert checked_generate(engine, token)(prompts=asked)[0] == asked
    with pytest.raises(BackendError, match="vLLM answered other prompts"):
        checked_generate(engine, None)(prompts=asked)
    with pytest.raises(BackendError, match="vLLM answered other prompts"):
        checked_generate(engine, token)(prompts=[[1, 9, 9, 2]])


def test_vllm_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else find_spec(name))
    with pytest.raises(RecipeError, match=r"vllm-colocate needs vLLM, which is not installed"):
        run_grpo(toy(rollout={"engine": "vllm-colocate"}), tmp_path / "run")


def test_a_colocated_vllm_makes_room_for_what_the_recipe_needs(tmp_path: Path) -> None:
    def room(**rollout: Any) -> int | None:
        found: int | None = trl_arguments(toy(rollout=rollout), tmp_path).vllm_max_model_length
        return found

    assert room(engine="vllm-colocate", max_prompt=300, max_new_tokens=50) == 350
    assert room(engine="vllm-colocate") == 4096  # all that egm-tiny has
    assert room(engine="vllm-server", max_prompt=300) is None  # it was started with its own


@pytest.mark.parametrize(
    "engine",
    ["vllm-server", "vllm-colocate"],
)
def test_vllm_is_told_not_to_sample_placeholders(tmp_path: Path, engine: str) -> None:
    ids = [build_processor().tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>") for kind in ("image", "video")]
    told = trl_arguments(toy(rollout={"engine": engine}), tmp_path).generation_kwargs
    assert told == {"logit_bias": dict.fromkeys(ids, -100.0)}


@pytest.mark.parametrize("engine", ["batched", "transformers"])
def test_no_engine_in_process_draws_placeholders(engine: str) -> None:
    model, processor = open_model(ModelSection(name=str(random_checkpoint("qwen3_vl"))), seed=0)
    ids = {processor.tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>") for kind in ("image", "video")}
    enable_fast_path(model)
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(model.lm_head.out_features))
    model.lm_head.bias.data[list(ids)] = 1e4  # nothing else would be drawn
    prompts = PromptCollator(processor, CODEC, None)(SynthRef("val").samples(0)[:2])
    stops, pad = [processor.tokenizer.eos_token_id], processor.tokenizer.pad_token_id
    barred = make_decoder(model, processor, stops, toy(rollout={"engine": engine}), bf16=False)
    free = BatchDecoder(model, dtype=None, stops=stops, pad=pad, banned=[], max_rows=None, graphs=False)
    for decoder, draws_them in ((barred, False), (free, True)):
        drawn = {token for answer in decoder(prompts, 4, max_new_tokens=4, temperature=3.0) for token in answer}
        assert drawn <= ids if draws_them else drawn.isdisjoint(ids)


def test_a_question_for_which_there_is_no_room_is_refused() -> None:
    processor, samples = build_processor(), SynthRef("val").samples(0)
    [ids] = PromptCollator(processor, CODEC, None, None)(samples[:1]).ids
    assert PromptCollator(processor, CODEC, None, len(ids))(samples[:1]).ids == [ids]
    says = f"the prompt of sample {samples[0].id} takes {len(ids)} tokens, over rollout.max_prompt {len(ids) - 1}"
    with pytest.raises(DataError, match=re.escape(says)):
        PromptCollator(processor, CODEC, None, len(ids) - 1)(samples[:1])


def test_small_steps_are_not_rounded_away() -> None:
    with pytest.raises(ValueError, match=r"model.dtype bfloat16 rounds the small steps"):
        toy(model={"dtype": "bfloat16"})
    assert toy(model={"dtype": "bfloat16", "lora": {}}).model.lora is not None


def test_candidates_are_not_drawn_by_vllm() -> None:
    with pytest.raises(ValueError, match=r"rollout.candidates 2 needs rollout.engine batched, not vllm-server"):
        toy(rollout={"candidates": 2, "engine": "vllm-server"})


def test_vllm_does_not_branch() -> None:
    with pytest.raises(ValueError, match=r"rollout.branch needs rollout.engine batched, not vllm-server"):
        toy(rollout={"branch": ".", "engine": "vllm-server"})


def test_shards_do_not_decode() -> None:
    with pytest.raises(RecipeError, match=r"^rollout.engine batched decode with the whole model"):
        grpo._refuse_sharded(toy())
    grpo._refuse_sharded(toy(rollout={"engine": "vllm-server"}))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_5", "internvl"])
def test_what_a_family_is_not_trained_with_is_refused_before_it_is_loaded(tmp_path: Path, family: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    (tmp_path / "model.safetensors").write_bytes(b"")  # no weights, and there is no processor either
    says = rf"is a '{family}' model, which run\.compile does not take: its layers were never compiled here$"
    with pytest.raises(ModelError, match=says) as caught:
        run_grpo(toy(model={"name": str(tmp_path)}, run={"compile": True}), tmp_path / "run")
    assert "\n" not in str(caught.value)
    for key in ("flatten", "compile"):
        sft: dict[str, Any] = {"model": {"name": str(tmp_path)}, "optim": {"steps": 1}, "run": {key: True}}
        with pytest.raises(ModelError, match=rf"is a '{family}' model, which run\.{key} does not take: "):
            run_sft(SFTRecipe.model_validate(sft), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_family_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    says = r"is a model of the family 'llava', and training knows InternVL, .* only: .* \(docs/families\.md\)$"
    with pytest.raises(ModelError, match=says):
        run_grpo(toy(model={"name": str(tmp_path)}), tmp_path / "run")
    with pytest.raises(ModelError, match=says):
        run_sft(SFTRecipe.model_validate({"model": {"name": str(tmp_path)}, "optim": {"steps": 1}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_numbers_must_be_one_digit_a_token(tmp_path: Path) -> None:
    shutil.copytree(find_checkpoint("egm-tiny").path, tmp_path / "model")
    processor = build_processor()
    processor.tokenizer.add_tokens(["42"])
    processor.save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match="writes 42 as 1 tokens, not one a digit"):
        run_grpo(toy(model={"name": str(tmp_path / "model")}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_could_not_learn_is_refused_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(
        EgmError, match=r"^preflight: of 16 rollouts .* cut off by rollout\.max_new_tokens 8 "
    ) as caught:
        run_grpo(toy(), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_prompts_must_divide_among_the_processes() -> None:
    recipe = toy(optim={"prompts": 6, "accumulation": 2})  # 24 completions
    assert [rows_per_pass(recipe, processes) for processes in (1, 2, 3, 6)] == [12, 6, 4, 2]
    with pytest.raises(RecipeError, match=r"do not divide among 4 processes and .* = 2 passes: choose a multiple$"):
        rows_per_pass(recipe, 4)
    halved = toy(optim={"prompts": 2, "accumulation": 4, "updates": 2})  # 8 completions in as many passes
    with pytest.raises(RecipeError, match=r"do not divide among 2 processes and .* = 8 passes: choose a multiple$"):
        rows_per_pass(halved, 2)


def test_running_out_of_memory_says_what_to_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(BatchDecoder, "generate", full)  # there is no GPU here to fill
    with pytest.raises(EgmError, match=r"out of GPU memory at step 1: lower rollout\.rows"):
        run_grpo(toy(), tmp_path / "run", check=False)
