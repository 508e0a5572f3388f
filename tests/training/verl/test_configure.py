"""A recipe in verl's words: what counts rollouts there and optimiser steps here, and what cannot be said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from egm.errors import RecipeError
from egm.training.grpo.recipe import GRPORecipe
from egm.training.recipe import load_recipe
from egm.training.rewards.reward import RewardSection
from egm.training.verl.configure import Cluster, Options, configure
from egm.training.verl.unsaid import rollouts_of, unsaid

from .recipes import ONE_GPU, POLICY, recipe

OUT = Path("/runs/a")
RECIPES = Path(__file__).parents[3] / "recipes"


def content(made: GRPORecipe, cluster: Cluster = ONE_GPU, **options: Any) -> dict[str, Any]:
    return configure(made, OUT, POLICY, cluster, Options(**options)).content


def test_the_published_recipe_on_eight_gpus() -> None:
    """256 prompts in 4 steps of 64, 16 completions each, in 32 passes on 8 GPUs: 4 completions a pass."""
    made = load_recipe(GRPORecipe, RECIPES / "egm-8b-grpo.yaml")
    found = content(made, Cluster(gpus=8, nodes=1, cpus=128))
    actor, rollout = found["actor_rollout_ref"]["actor"], found["actor_rollout_ref"]["rollout"]
    assert (actor["ppo_mini_batch_size"], actor["ppo_micro_batch_size_per_gpu"]) == (64, 4)
    assert (actor["clip_ratio_low"], actor["clip_ratio_high"]) == (3e-4, 4e-4)
    assert actor["policy_loss"] == {"loss_mode": "gspo"}
    assert (actor["use_kl_loss"], actor["kl_loss_coef"], actor["kl_loss_type"]) == (True, 0.005, "low_var_kl")
    assert actor["optim"]["lr_warmup_steps"] == 30  # as published: 120 steps are 30 rollouts
    assert (found["trainer"]["total_training_steps"], found["trainer"]["save_freq"]) == (250, 10)
    assert (found["data"]["train_batch_size"], rollout["n"], found["data"]["max_response_length"]) == (256, 16, 2048)
    assert found["data"]["image_patch_size"] == 16
    assert rollout["max_num_seqs"] == 512  # all that a GPU has to draw
    assert found["reward"]["custom_reward_function"]["path"] == "pkg://egm.training.verl"


def test_the_reward_is_the_recipes() -> None:
    section = {"terms": [{"kind": "iou"}], "format_gate": {"factor": 0.5}, "overlong": {"limit": 300}}
    passed = content(recipe(reward=section))["reward"]["custom_reward_function"]["reward_kwargs"]
    assert RewardSection.model_validate(passed["reward"]) == RewardSection.model_validate(section)
    assert (passed["codec"], passed["tokenizer"]) == ("qwen3_vl", "/models/m")


@pytest.mark.parametrize(
    ("loss", "mode", "averaged", "scale"),
    [
        ("grpo", "vanilla", "seq-mean-token-mean", True),
        ("dapo", "vanilla", "token-mean", True),
        ("dr_grpo", "vanilla", "seq-mean-token-sum-norm", False),
        ("gspo", "gspo", "seq-mean-token-mean", True),
    ],
)
def test_losses(loss: str, mode: str, averaged: str, scale: bool) -> None:
    found = content(recipe(optim={"loss": loss}))
    actor = found["actor_rollout_ref"]["actor"]
    assert (actor["policy_loss"]["loss_mode"], actor["loss_agg_mode"]) == (mode, averaged)
    assert actor["loss_scale_factor"] == (320 if loss == "dr_grpo" else None)
    assert found["algorithm"]["norm_adv_by_std_in_grpo"] is scale
    assert actor["clip_ratio_c"] >= 1e6  # TRL clips once


def test_steps_are_counted_in_rollouts() -> None:
    made = recipe(
        optim={"steps": 41, "updates": 2, "iterations": 2, "warmup_steps": 10},
        run={"save_every": 12},
        eval={"every": 2, "samples": 3},
    )
    found = content(made)
    trainer, actor = found["trainer"], found["actor_rollout_ref"]["actor"]
    assert trainer["total_training_steps"] == rollouts_of(made) == 11
    assert (trainer["save_freq"], trainer["test_freq"], trainer["val_before_train"]) == (3, 1, True)
    assert (actor["ppo_epochs"], actor["ppo_mini_batch_size"], actor["optim"]["lr_warmup_steps"]) == (2, 4, 2)
    assert [note.partition(",")[0] for note in unsaid(made, "vllm")] == [
        "optim.steps 41: 44",
        "optim.warmup_steps 10: 8",
        "eval.every 2: 4",
    ]


def test_what_verl_cannot_is_named_with_what_it_becomes() -> None:
    made = recipe(
        model={"freeze": ["vision_tower"]},
        rollout={"engine": "batched", "branch": "."},
        optim={"schedule": "linear", "scale": "batch", "zero_spread": "mask"},
    )
    notes = unsaid(made, "sglang")
    assert [note.partition(":")[0] for note in notes] == [
        "model.freeze vision_tower",
        "rollout.engine batched",
        "optim.zero_spread mask",
        "rollout.branch '.'",
        "optim.scale batch",
        "optim.schedule linear",
    ]
    assert "SGLang" in notes[1]
    assert unsaid(recipe(), "vllm") == []


def test_candidates_become_groups_that_are_drawn_anew() -> None:
    made = recipe(rollout={"engine": "batched", "candidates": 3})
    assert content(made)["algorithm"]["filter_groups"] == {
        "enable": True,
        "metric": "reward",
        "max_inflight_gen_batches": 3,
    }
    assert any(note.startswith("rollout.candidates 3: ") for note in unsaid(made, "vllm"))


def test_an_adapter() -> None:
    made = recipe(model={"lora": {"rank": 8, "alpha": 16, "dropout": 0.1, "full": ["projector"]}, "dtype": "bfloat16"})
    found = content(made)["actor_rollout_ref"]
    assert (found["model"]["lora_rank"], found["model"]["lora_alpha"]) == (8, 16)
    assert found["actor"]["fsdp_config"]["model_dtype"] == "bf16"
    assert "hf_model" not in found["actor"]["checkpoint"]["save_contents"]
    assert [note.partition(":")[0] for note in unsaid(made, "vllm")] == [
        "model.lora.dropout 0.1",
        "model.lora.full projector",
    ]


def test_without_flash_attention_padding_stays() -> None:
    assert content(recipe())["actor_rollout_ref"]["model"]["use_remove_padding"] is False
    assert content(recipe())["actor_rollout_ref"]["model"]["override_config"] == {"attn_implementation": "sdpa"}
    model = content(recipe(), flash=True)["actor_rollout_ref"]["model"]
    assert (model["use_remove_padding"], "override_config" in model) == (True, False)


def test_a_prompt_has_the_room_that_the_answer_leaves() -> None:
    found = content(recipe(rollout={"max_prompt": 4096}))
    assert found["data"]["max_prompt_length"] == 4096 - 320
    assert found["actor_rollout_ref"]["rollout"]["max_model_len"] == 4096


def test_it_can_be_written_and_read() -> None:
    found = content(recipe())
    assert yaml.safe_load(yaml.safe_dump(found)) == found


@pytest.mark.parametrize(("cpus", "units"), [(None, 8), (6, 1), (9, 4), (64, 8)])
def test_the_queue_gets_the_cpus_that_are_left(cpus: int | None, units: int) -> None:
    found = content(recipe(), Cluster(1, 1, cpus))
    assert found["transfer_queue"]["backend"]["SimpleStorage"]["num_data_storage_units"] == units


@pytest.mark.parametrize(
    ("sections", "cluster", "says"),
    [
        ({}, Cluster(1, 1, 5), r"verl needs 6 CPUs for 1 GPUs .* and 5 are free: it would wait for ever"),
        ({}, Cluster(8, 2, 32), r"verl needs 51 CPUs for 16 GPUs"),
        ({"optim": {"prompts": 9, "updates": 2}}, ONE_GPU, "optim.prompts 9 do not divide into optim.updates 2"),
        ({}, Cluster(3, 1, 64), "8 prompts x rollout.group 4 = 32 completions .* do not divide among 3 GPUs"),
        ({"rollout": {"max_new_tokens": 4096}}, ONE_GPU, "max_new_tokens 4096 leaves no room for a prompt"),
    ],
)
def test_what_does_not_fit(sections: dict[str, Any], cluster: Cluster, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        content(recipe(**sections), cluster)
