"""`egm grpo` on a mixture of experts: what it decodes, reads and balances is what the stock model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from egm.models.families import trained_family
from egm.training.grpo.recipe import GRPORecipe
from egm.training.grpo.run import make_trainer
from egm.training.grpo.trainer import GroundingGRPOTrainer

from ...families import random_checkpoint
from .test_run import Digits

pytestmark = pytest.mark.usefixtures("on_cpu")

MODEL_TYPES = ("qwen3_vl_moe", "qwen3_5_moe")
TEMPERATURE = 2.0


@pytest.fixture
def trainer(tmp_path: Path, model_type: str) -> GroundingGRPOTrainer:
    recipe = {
        "model": {"name": str(random_checkpoint(model_type))},
        "data": {"scenes": 2},
        "rollout": {"group": 2, "max_new_tokens": 6, "temperature": TEMPERATURE, "keep": 0},
        "optim": {"steps": 1, "prompts": 3, "learning_rate": 1e-3, "zero_spread": "count"},
        "run": {"log_every": 1},
    }
    return make_trainer(GRPORecipe.model_validate(recipe), tmp_path / "run", reward=Digits())


def stock(model_type: str) -> Any:
    return AutoModelForImageTextToText.from_pretrained(random_checkpoint(model_type)).eval()


@pytest.mark.parametrize("model_type", ["qwen3_vl_moe"])
def test_greedy_rollouts_are_the_librarys(trainer: GroundingGRPOTrainer, model_type: str) -> None:
    prompts, model = trainer._prefetcher.get([0, 1, 2]), stock(model_type)
    found = trainer.decoder(prompts, 1, max_new_tokens=6, temperature=0.0)
    pieces = torch.split(prompts.pixels, [rows * columns for _, rows, columns in prompts.grids])
    banned = [model.config.image_token_id, model.config.video_token_id]
    for ids, picture, own in zip(prompts.ids, prompts.pictures, found, strict=True):
        asked = torch.tensor([ids])
        whole = model.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            pixel_values=pieces[picture],
            image_grid_thw=torch.tensor([prompts.grids[picture]]),
            mm_token_type_ids=(asked == model.config.image_token_id).long(),
            max_new_tokens=6,
            do_sample=False,
            suppress_tokens=banned,
        )[0, len(ids) :]
        assert own == whole.tolist()


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_step_reads_and_balances_as_the_stock_model(trainer: GroundingGRPOTrainer, model_type: str) -> None:
    passes: list[dict[str, torch.Tensor]] = []
    loss, read = trainer._compute_loss, trainer._get_per_token_logps_and_entropies
    results: list[tuple[torch.Tensor, Any, Any]] = []

    def noted(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        passes.append({name: value.clone() for name, value in inputs.items()})
        return loss(model, inputs)

    def kept(*args: Any, **kwargs: Any) -> Any:
        results.append(read(*args, **kwargs))
        return results[-1]

    trainer._compute_loss, trainer._get_per_token_logps_and_entropies = noted, kept
    trainer.train()
    [batch], model, prompts = passes, stock(model_type), trainer._prompts
    logps, _, aux = results[-1]
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    pictures = [prompts.pictures[row] for row in batch["rows"].tolist()]
    family, processor = trained_family(model.config), trainer.processing_class
    with torch.no_grad():
        output = model(
            input_ids=ids,
            attention_mask=mask,
            mm_token_type_ids=(ids == model.config.image_token_id).long(),
            pixel_values=prompts.pixel_values(pictures, family, processor, torch.device("cpu")),
            image_grid_thw=torch.tensor([prompts.grids[picture] for picture in pictures]),
            output_router_logits=True,
        )
    columns = batch["completion_ids"].shape[1]
    expected = (output.logits[:, -columns - 1 : -1] / TEMPERATURE).log_softmax(-1)
    expected = expected.gather(2, batch["completion_ids"][:, :, None])[:, :, 0]
    real = batch["completion_mask"].bool()
    torch.testing.assert_close(logps[real], expected[real], atol=1e-4, rtol=1e-4)
    assert float(aux) == pytest.approx(float(output.aux_loss), rel=1e-4)
    assert not model.config.text_config.output_router_logits
    assert not trainer.model.config.text_config.output_router_logits
