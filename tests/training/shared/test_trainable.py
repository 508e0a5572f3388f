"""Frozen parts, adapters and recomputed layers on the real architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from egm.errors import RecipeError
from egm.models import build_model
from egm.training.recipe import ModelSection
from egm.training.shared.trainable import PARTS, choose_parts, is_part, recompute_layers


def section(**changes: Any) -> ModelSection:
    return ModelSection.model_validate({"name": "tiny-s"} | changes)


def test_every_parameter_belongs_to_one_part() -> None:
    for name in ("tiny-s", "8B", "30B-A3B"):
        for parameter, _ in build_model(name, device="meta").named_parameters():
            assert sum(is_part(parameter, part) for part in PARTS if part != "embeddings") == 1, parameter
            assert is_part(parameter, "language_model") or not is_part(parameter, "embeddings")


def test_what_is_frozen_is_what_was_named() -> None:
    model = choose_parts(build_model("tiny-s"), section(freeze=["vision_tower", "language_model"]))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if is_part(name, "projector")}
    assert any("deepstack_merger_list" in name for name in trained)


def test_embeddings_are_a_part_of_the_language_model() -> None:
    model = choose_parts(build_model("tiny-s"), section(freeze=["embeddings"]))
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
    model = choose_parts(build_model("tiny-s"), section(lora={"rank": 4, "full": ["projector"]}))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "modules_to_save" in name for name in trained)
    assert sum("lora_A" in name for name in trained) == 6 * 7  # layers x linear layers
    assert all("language_model" in name for name in trained if "lora_" in name)
    merger = build_model("tiny-s").model.visual
    wanted = len(list(merger.merger.parameters())) + len(list(merger.deepstack_merger_list.parameters()))
    assert sum("modules_to_save" in name for name in trained) == wanted


def test_an_adapter_comes_from_its_seed() -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    one, two, other = (
        choose_parts(build_model("tiny-s"), section(lora={"rank": 2}), seed=seed).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    down = [name for name in one if "lora_A" in name]
    assert all(torch.equal(one[name], two[name]) and not torch.equal(one[name], other[name]) for name in down)


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(RecipeError, match=r"no linear layer is called c_attn; there are .*q_proj"):
        choose_parts(build_model("tiny-s"), section(lora={"modules": ["q_proj", "c_attn"]}))


def test_a_share_of_the_layers_is_recomputed_and_no_frozen_tower() -> None:
    model = choose_parts(build_model("tiny-s").train(), section(freeze=["vision_tower"]))
    recompute_layers(model, 0.5)
    assert [layer.gradient_checkpointing for layer in model.model.language_model.layers] == [True] * 3 + [False] * 3
    assert not any(block.gradient_checkpointing for block in model.model.visual.blocks)
    pixels = torch.randn(16, 1536)
    seen = model.model.visual(pixels, grid_thw=torch.tensor([[1, 4, 4]]))
    assert not seen.last_hidden_state.requires_grad  # no way back through the frozen tower
    assert seen.pooler_output.requires_grad
