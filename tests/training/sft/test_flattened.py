"""Flattened batches: the same loss and the same gradients as padded ones, without a token of padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from egm.boxes import Box
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.models import build_processor, enable_fast_path
from egm.models.families.qwen_vl import expand_pixels
from egm.training.data import SynthRefRows
from egm.training.data.collate import IGNORED, Collator
from egm.training.sft.flattened import Flattening, flatten, use_flat_attention
from egm.training.shared.trainable import recompute_layers
from egm.types import Sample

from ...families import config_of, random_model


@pytest.fixture(scope="module")
def collator() -> Collator:
    config = config_of("qwen3_vl")
    return Collator(SynthRefRows(20, 0), build_processor(), get_codec("qwen3_vl"), config)


def mixed(collator: Collator) -> dict[str, Any]:
    wide = Image.effect_noise((320, 96), 60).convert("RGB")
    samples = [*SynthRef("train").samples(0), Sample("w", wide, "it", Box(1, 2, 30, 40), wide.size, rationale="Here.")]
    return collator.collate(samples)


def step(model: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    inputs = {key: value for key, value in batch.items() if key not in ("pixels", "labels", "samples")}
    labels = batch["labels"][:, 1:]
    pixels = expand_pixels(batch["pixels"], mean=[0.5] * 3, std=[0.5] * 3, temporal=2)
    model.zero_grad()
    logits = model(**inputs, pixel_values=pixels, use_cache=False).logits
    if "logits_to_keep" in batch:
        labels = labels[:, batch["logits_to_keep"]]
        assert logits.shape[1] == len(batch["logits_to_keep"])  # the output layer saw the answers alone
    else:
        logits = logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_nothing_of_a_flat_batch_is_padding(collator: Collator) -> None:
    batch = mixed(collator)
    flat = flatten(batch)
    lengths = flat["egm_lengths"]
    assert flat["input_ids"].shape == (1, sum(lengths))
    assert flat["position_ids"].shape == (3, 1, sum(lengths))
    assert flat["cu_seq_lens_q"].tolist()[1:] == torch.tensor(lengths).cumsum(0).tolist()
    for i, ids in enumerate(flat["input_ids"][0].split(lengths)):
        assert torch.equal(ids, batch["input_ids"][i, : lengths[i]])
        assert (batch["input_ids"][i, lengths[i] :] == collator.pad_id).all()
    assert (flat["labels"] != IGNORED).sum() == (batch["labels"] != IGNORED).sum() == len(flat["logits_to_keep"])


@pytest.mark.parametrize("recompute", [0.0, 1.0])
def test_loss_and_gradients_are_those_of_padded_batches(collator: Collator, recompute: float) -> None:
    batch = mixed(collator)
    padded_loss, padded = step(enable_fast_path(random_model("qwen3_vl")), batch)
    model = enable_fast_path(random_model("qwen3_vl"))
    use_flat_attention(model)
    recompute_layers(model.train(), recompute)
    loss, gradients = step(model, flatten(batch))
    assert loss == pytest.approx(padded_loss, abs=1e-5)
    assert gradients.keys() == padded.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, padded[name], atol=1e-5, rtol=1e-3)


def test_sequences_do_not_see_each_other(collator: Collator) -> None:
    model = enable_fast_path(random_model("qwen3_vl"))
    use_flat_attention(model)
    rows = Flattening(collator)
    both, alone = rows([{"row": 0}, {"row": 1}]), rows([{"row": 1}])
    with torch.no_grad():
        a, b = (
            model(
                **{k: v for k, v in batch.items() if k not in ("pixels", "labels", "samples", "logits_to_keep")},
                pixel_values=expand_pixels(batch["pixels"], mean=[0.5] * 3, std=[0.5] * 3, temporal=2),
            ).logits[0]
            for batch in (both, alone)
        )
    torch.testing.assert_close(a[-len(b) :], b, atol=1e-4, rtol=1e-4)


def test_without_lengths_it_is_the_usual_attention() -> None:
    usual, flat = random_model("qwen3_vl"), random_model("qwen3_vl")
    use_flat_attention(flat)
    ids = torch.randint(300, 500, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    with torch.no_grad():
        expected = usual(input_ids=ids, attention_mask=mask).logits
        torch.testing.assert_close(flat(input_ids=ids, attention_mask=mask).logits, expected)
        greedy = {"max_new_tokens": 5, "do_sample": False}
        answers = [model.generate(input_ids=ids, attention_mask=mask, **greedy) for model in (usual, flat)]
    assert torch.equal(*answers)
