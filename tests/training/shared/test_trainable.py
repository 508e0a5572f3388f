"""Frozen parts, adapters and recomputed layers on the real architecture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from egm.errors import ModelError, RecipeError
from egm.models import build_model, embedded_path
from egm.models.families import Qwen3VLFamily
from egm.models.presets import build_config, get_preset
from egm.training.grpo.recipe import GRPORecipe
from egm.training.grpo.run import run_grpo
from egm.training.recipe import ModelSection
from egm.training.sft.recipe import SFTRecipe
from egm.training.sft.run import run_sft
from egm.training.shared.trainable import check_gradients, choose_parts, recompute_layers

from ...families import random_model

QWEN3_VL = Qwen3VLFamily()


def section(**changes: Any) -> ModelSection:
    return ModelSection.model_validate({"name": "tiny-s"} | changes)


def test_every_parameter_belongs_to_one_part() -> None:
    for name in ("tiny-s", "8B", "30B-A3B"):
        for parameter, _ in build_model(name, device="meta").named_parameters():
            assert sum(QWEN3_VL.has(parameter, part) for part in QWEN3_VL.parts if part != "embeddings") == 1, parameter
            assert QWEN3_VL.has(parameter, "language_model") or not QWEN3_VL.has(parameter, "embeddings")


def test_what_is_frozen_is_what_was_named() -> None:
    model = choose_parts(build_model("tiny-s", device="meta"), section(freeze=["vision_tower", "language_model"]))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if QWEN3_VL.has(name, "projector")}
    assert any("deepstack_merger_list" in name for name in trained)


def test_embeddings_are_a_part_of_the_language_model() -> None:
    model = choose_parts(build_model("tiny-s", device="meta"), section(freeze=["embeddings"]))
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == [
        "model.language_model.embed_tokens.weight"
    ]
    for parts in (
        ["vision_tower", "projector", "language_model"],
        ["vision_tower", "projector", "language_model", "embeddings"],
    ):
        with pytest.raises(ValueError, match="nothing is left to train"):
            section(freeze=parts)


def test_an_adapter_leaves_everything_else_as_it_is() -> None:
    model = choose_parts(build_model("tiny-s", device="meta"), section(lora={"rank": 4, "full": ["projector"]}))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "modules_to_save" in name for name in trained)
    assert sum("lora_A" in name for name in trained) == 6 * 7  # layers x linear layers
    assert all("language_model" in name for name in trained if "lora_" in name)
    merger = build_model("tiny-s", device="meta").model.visual
    wanted = len(list(merger.merger.parameters())) + len(list(merger.deepstack_merger_list.parameters()))
    assert sum("modules_to_save" in name for name in trained) == wanted


def test_an_adapter_comes_from_its_seed() -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    one, two, other = (
        choose_parts(random_model("qwen3_vl"), section(lora={"rank": 2}), seed=seed).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    down = [name for name in one if "lora_A" in name]
    assert all(torch.equal(one[name], two[name]) and not torch.equal(one[name], other[name]) for name in down)


def test_a_module_that_is_not_there_is_named() -> None:
    model = build_model("tiny-s", device="meta")
    for name in ("c_attn", "patch_embed.proj", "_proj", "lm_head", ""):
        with pytest.raises(RecipeError, match=rf"no linear layer is called '{name}'; there are .*proj, q_proj"):
            choose_parts(model, section(lora={"modules": ["q_proj", name]}))
    with pytest.raises(RecipeError, match="no linear layer is called nothing"):
        choose_parts(model, section(lora={"modules": []}))
    with pytest.raises(RecipeError, match=r"no linear layer is called 'visual\.merger\.linear_fc1'"):  # trained whole
        choose_parts(model, section(lora={"modules": ["visual.merger.linear_fc1"], "full": ["projector"]}))


_BLOCKS = [f"visual.blocks.{number}." for number in range(6)]
_MERGERS = ["visual.merger.", "visual.deepstack_merger_list.0.", "visual.deepstack_merger_list.1."]


@pytest.mark.parametrize(
    ("lora", "adapted"),
    [
        ({"modules": ["qkv", "proj"]}, [f"{block}attn.{name}" for block in _BLOCKS for name in ("qkv", "proj")]),
        ({"modules": ["mlp.linear_fc1"]}, [f"{block}mlp.linear_fc1" for block in _BLOCKS]),
        ({"modules": ["linear_fc2"]}, [f"{part}linear_fc2" for part in (*(f"{b}mlp." for b in _BLOCKS), *_MERGERS)]),
        ({"modules": ["linear_fc2"], "full": ["projector"]}, [f"{block}mlp.linear_fc2" for block in _BLOCKS]),
        ({"modules": ["blocks.0.attn.qkv", "qkv"]}, [f"{block}attn.qkv" for block in _BLOCKS]),
        ({"modules": ["model.visual.blocks.3.attn.proj"]}, ["visual.blocks.3.attn.proj"]),
    ],
)
def test_linear_layers_alone_get_an_adapter(lora: dict[str, Any], adapted: list[str]) -> None:
    """A name is also that of the convolution before the blocks, or of layers in another part."""
    model = choose_parts(build_model("tiny-s", device="meta"), section(lora={"rank": 1} | lora))
    names = {name.partition(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
    assert names == {f"base_model.model.model.{name}" for name in adapted}


def test_layers_of_many_blocks_and_of_experts_are_named_in_full() -> None:
    """PEFT shortens long lists of names to ends that no other layer shares."""
    for modules, count in ((["qkv", "proj"], 54), (["q_proj"], 48)):
        model = choose_parts(build_model("30B-A3B", device="meta"), section(lora={"rank": 1, "modules": modules}))
        down = [name for name, _ in model.named_parameters() if "lora_A" in name]
        assert len(down) == count
        assert not any("patch_embed" in name for name in down)


def test_an_expert_without_a_token_is_no_weight_without_a_gradient() -> None:
    preset = get_preset("tiny-s")
    text = replace(preset.text, experts=8, active_experts=1, expert_intermediate=16, layers=3)
    model = AutoModelForImageTextToText.from_config(build_config(replace(preset, text=text)))
    for parameter in model.model.visual.parameters():
        parameter.requires_grad_(False)
    model(input_ids=torch.tensor([[5, 6]]), labels=torch.tensor([[5, 6]])).loss.backward()
    experts = model.model.language_model.layers[0].mlp.experts.down_proj
    assert 0 < int((experts.grad.flatten(1).abs().sum(1) == 0).sum()) < 8
    check_gradients(model)
    model.model.language_model.norm.weight.grad = None
    with pytest.raises(ModelError, match=r"1 got no gradient in the first .*: model\.language_model\.norm\.weight; "):
        check_gradients(model)


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_trained_weights_outside_of_the_forward_pass_end_the_run(stage: str, tmp_path: Path) -> None:
    model = shutil.copytree(embedded_path(), tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["vision_config"]["deepstack_visual_indexes"][-1] = 99  # a block that is not there feeds the last merger
    (model / "config.json").write_text(json.dumps(config))
    content: dict[str, Any] = {
        "model": {"name": str(model)},
        "data": {"scenes": 2},
        "optim": {"steps": 2, "learning_rate": 1e-3, "warmup_steps": 0},
        "run": {"save_every": 1},
    }
    train: Callable[[Path], Any]
    if stage == "sft":
        content["optim"]["batch_size"] = 4
        train = partial(run_sft, SFTRecipe.model_validate(content))
    else:
        content["optim"]["prompts"] = 1
        content["rollout"] = {"group": 2, "max_new_tokens": 4}
        train = partial(run_grpo, GRPORecipe.model_validate(content), check=False)
    with pytest.raises(ModelError, match=r"^of \d+ trained weights 6 got no gradient.*merger_list\.1\.norm\.weight, "):
        train(tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_share_of_the_layers_is_recomputed_and_no_frozen_tower() -> None:
    model = choose_parts(build_model("tiny-s").train(), section(freeze=["vision_tower"]))
    recompute_layers(model, 0.5)
    assert [layer.gradient_checkpointing for layer in model.model.language_model.layers] == [True] * 3 + [False] * 3
    assert not any(block.gradient_checkpointing for block in model.model.visual.blocks)
    pixels = torch.randn(16, 1536)
    seen = model.model.visual(pixels, grid_thw=torch.tensor([[1, 4, 4]]))
    assert not seen.last_hidden_state.requires_grad  # no way back through the frozen tower
    assert seen.pooler_output.requires_grad
