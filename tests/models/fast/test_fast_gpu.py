"""The fast path on a GPU: still the stock model's numbers, and the host never waits."""

import copy
import random

import pytest
import torch

from egm.models import build_model, enable_fast_path, position_ids
from egm.models.tiny.vocabulary import token_id

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def models():
    stock = build_model("tiny-s", seed=0).cuda().train()
    return stock, enable_fast_path(copy.deepcopy(stock))


def make_batch(config, count=8, seed=0):
    draw = random.Random(seed)
    grids = [(1, draw.randrange(10, 25, 2), draw.randrange(10, 19, 2)) for _ in range(count)]
    tokens = [h * w // 4 for _, h, w in grids]
    ids = torch.full((count, 40 + max(tokens)), token_id("<|endoftext|>"))
    mask = torch.zeros_like(ids)
    for row, visual in enumerate(tokens):
        ids[row, : 40 + visual] = torch.randint(282, 600, (40 + visual,), generator=torch.Generator().manual_seed(row))
        ids[row, 5 : 5 + visual] = config.image_token_id
        mask[row, : 40 + visual] = 1
    pixels = torch.randn(sum(h * w for _, h, w in grids), 1536, generator=torch.Generator().manual_seed(0))
    shared = {"input_ids": ids.cuda(), "pixel_values": pixels.cuda()}
    kinds = (ids == config.image_token_id).int().cuda()
    stock = {"attention_mask": mask.cuda(), "mm_token_type_ids": kinds, "image_grid_thw": torch.tensor(grids).cuda()}
    light = {"position_ids": position_ids(ids, grids, mask, config).cuda(), "image_grid_thw": grids}
    return shared | stock, shared | light, mask.cuda().bool()


def run(model, batch, mask):
    model.zero_grad()
    logits = model(**batch, use_cache=False).logits[mask].float()
    logits.square().mean().backward()
    return logits.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def distance(first, second):
    """Relative distance of two flat gradients."""
    a, b = (torch.cat([gradient.flatten() for gradient in side.values()]) for side in (first, second))
    return float((a - b).norm() / a.norm())


def test_in_float32_outputs_and_gradients_are_the_stock_models(models, monkeypatch: pytest.MonkeyPatch) -> None:
    # cuDNN rounds what a stock convolution multiplies to TensorFloat-32, unless told otherwise.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    stock, light, mask = make_batch(models[0].config)
    expected, actual = run(models[0], stock, mask), run(models[1], light, mask)
    torch.testing.assert_close(expected[0], actual[0], atol=1e-5, rtol=1e-4)
    assert distance(expected[1], actual[1]) < 1e-4


def test_in_bfloat16_it_is_as_close_to_float32_as_the_stock_model(models) -> None:
    stock, light, mask = make_batch(models[0].config)
    exact = run(models[0], stock, mask)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        expected, actual = run(models[0], stock, mask), run(models[1], light, mask)
    assert distance(exact[1], actual[1]) < 1.3 * distance(exact[1], expected[1]) + 1e-3


def test_the_host_never_waits_for_the_gpu(models) -> None:
    (_, light, _), (_, other, _) = (make_batch(models[0].config, seed=seed) for seed in (0, 1))
    with torch.autocast("cuda", dtype=torch.bfloat16):
        models[1](**light, use_cache=False).logits.float().square().mean().backward()  # kernels and tables are made
        torch.cuda.set_sync_debug_mode("error")
        try:
            models[1](**other, use_cache=False).logits.float().square().mean().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
