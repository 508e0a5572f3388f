"""The fast path against the stock model: outputs, gradients and greedy tokens on mixed image sizes."""

import copy

import pytest
import torch
from PIL import Image

from egm.errors import ModelError
from egm.models.fast.enable import disable_fast_path, enable_fast_path, is_fast
from egm.models.fast.rope_index import position_ids
from egm.models.presets import PRESETS, build_model
from egm.models.shapes import Preset, Text, Vision
from egm.models.tiny.processor import build_processor
from egm.models.tiny.vocabulary import TINY_VOCAB_SIZE

SIZES = [(96, 64), (160, 160), (64, 96), (128, 224), (160, 160), (64, 64)]
TOWER = Vision(64, 3, 2, 96, (0, 1), 64)
DENSE = Text(64, 3, 4, 2, 96, 16, TINY_VOCAB_SIZE, 10_000.0, (4, 2, 2))
SPARSE = Text(64, 3, 4, 2, 96, 16, TINY_VOCAB_SIZE, 10_000.0, (4, 2, 2), 4, 2, 32)


@pytest.fixture(scope="module", params=["dense", "experts"])
def models(request):
    """A stock model and its mended copy, small, with features strong enough to matter."""
    preset = Preset("small", "egm-tiny", 0, 4096, DENSE if request.param == "dense" else SPARSE, TOWER, tied=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "small", preset)
        stock = build_model("small", seed=1)
    generator = torch.Generator().manual_seed(2)
    for parameter in stock.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return stock, enable_fast_path(copy.deepcopy(stock))


def make_batch(sizes=SIZES, *, side="right", several=False):
    """Ask about random pictures, the last two in one prompt if `several`."""
    processor = build_processor()
    processor.tokenizer.padding_side = side
    generator = torch.Generator().manual_seed(0)
    pictures = [
        Image.fromarray(torch.randint(0, 255, (h, w, 3), generator=generator, dtype=torch.uint8).numpy())
        for w, h in sizes
    ]
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    texts = [f"{mark}Locate the {'small ' * k}red circle" for k in range(len(sizes))]
    if several:
        texts = [*texts[:-2], f"the {mark} first and {mark} second"]
    return dict(processor(text=texts, images=pictures, padding=True, return_tensors="pt"))


def run(model, batch, **kwargs):
    model.zero_grad()
    labels = batch["input_ids"].masked_fill(batch.get("attention_mask", batch["input_ids"] * 0 + 1) == 0, -100)
    output = model(**batch, labels=labels, **kwargs)
    output.loss.backward()
    return output.logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(first, second, atol=1e-5):
    torch.testing.assert_close(first[0], second[0], atol=atol, rtol=atol)
    assert first[1].keys() == second[1].keys()
    for name, gradient in first[1].items():
        torch.testing.assert_close(gradient, second[1][name], atol=atol, rtol=atol, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("several", [False, True])
def test_outputs_and_gradients_are_the_stock_models(models, side: str, several: bool) -> None:
    batch = make_batch(side=side, several=several)
    stock, mended = run(models[0], batch), run(models[1], batch)
    assert_same(stock, mended)
    assert stock[0].abs().max() > 0.1, "a model whose outputs are all but zero would prove nothing"


def test_pictures_are_placed_the_fast_way_whatever_the_version_passes_on(models, monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise AssertionError("the stock way of placing features was taken")

    monkeypatch.setattr(models[1].model, "get_placeholder_mask", refuse)
    run(models[1], make_batch())


@pytest.mark.parametrize("sizes", [[(160, 160)] * 3, [(64, 64), (64, 96), (96, 64), (160, 96)], [(96, 128)]])
def test_equal_sizes_and_sorted_sizes_need_no_reordering(models, sizes) -> None:
    batch = make_batch(sizes)
    assert_same(run(models[0], batch), run(models[1], batch))


def test_positions_from_the_loader_and_grids_as_a_list_give_the_same(models) -> None:
    batch = make_batch()
    expected = run(models[0], batch)
    grids = batch["image_grid_thw"].tolist()
    positions = position_ids(batch["input_ids"], grids, batch["attention_mask"], models[0].config)
    light = {**batch, "image_grid_thw": grids, "position_ids": positions}
    assert_same(expected, run(models[1], light))
    del light["mm_token_type_ids"]
    mask = light.pop("attention_mask")
    without_mask = models[1](**light).logits
    torch.testing.assert_close(without_mask[mask == 1], expected[0][mask == 1], atol=1e-5, rtol=1e-5)


def test_greedy_tokens_are_the_stock_models(models) -> None:
    batch = make_batch(side="left", several=True)
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    stock, mended = (model.generate(**batch, **options) for model in models)
    assert torch.equal(stock, mended)
    assert len(set(stock[:, -12:].flatten().tolist())) > 3


def test_under_bfloat16_autocast_it_stays_close(models) -> None:
    batch = make_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        stock, mended = (model(**batch).logits.float() for model in models)
    exact = models[0](**batch).logits
    assert (mended - exact).abs().mean() < 1.2 * (stock - exact).abs().mean()


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
def test_with_gradient_checkpointing_gradients_are_the_same(models) -> None:
    batch = make_batch()
    expected = run(models[0], batch)
    other = copy.deepcopy(models[1]).train()
    other.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert_same(expected, run(other, batch))


def test_eager_attention_stays_the_stock_one(models) -> None:
    batch = make_batch()
    stock, mended = (copy.deepcopy(model) for model in models)
    for model in (stock, mended):
        model.set_attn_implementation("eager")
    assert_same(run(stock, batch), run(mended, batch))


def test_text_alone_and_ready_embeddings_go_the_stock_way(models) -> None:
    ids = torch.tensor([[100, 101, 102, 103]])
    for model in models:
        model.model.rope_deltas = None  # the stock model would remember those of the last batch
    for inputs in ({"input_ids": ids}, {"inputs_embeds": models[0].get_input_embeddings()(ids)}):
        with torch.no_grad():
            torch.testing.assert_close(models[0](**inputs).logits, models[1](**inputs).logits)


def test_videos_go_the_stock_way(models) -> None:
    processor = build_processor()
    frames = torch.randint(0, 255, (4, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = processor.video_processor(videos=[frames], return_tensors="pt", do_sample_frames=False)
    count = int(pixels["video_grid_thw"].prod()) // 4
    frame_count = int(pixels["video_grid_thw"][0, 0])
    marks = "<1.0 seconds><|vision_start|>" + "<|video_pad|>" * (count // frame_count) + "<|vision_end|>"
    ids = processor.tokenizer(marks * frame_count + "What?", return_tensors="pt").input_ids
    batch = {
        "input_ids": ids,
        "pixel_values_videos": pixels["pixel_values_videos"],
        "video_grid_thw": pixels["video_grid_thw"],
        "mm_token_type_ids": (ids == models[0].config.video_token_id).int() * 2,
    }
    assert_same(run(models[0], batch), run(models[1], batch))


def test_the_tower_alone_gives_everything_in_the_images_order(models) -> None:
    batch = make_batch()
    arguments = (batch["pixel_values"], batch["image_grid_thw"])
    with torch.no_grad():
        stock, mended = (model.model.visual(*arguments, return_dict=True) for model in models)
        features = [model.model.get_image_features(*arguments, return_dict=True).pooler_output for model in models]
    for name in ("last_hidden_state", "pooler_output", "deepstack_features"):
        torch.testing.assert_close(stock[name], mended[name], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*features, atol=1e-5, rtol=1e-5)


def test_tables_kept_from_inference_serve_training(models) -> None:
    batch = make_batch([(192, 64), (64, 160)])
    with torch.inference_mode():
        models[1](**batch)
    assert_same(run(models[0], batch), run(models[1], batch))


def test_it_is_idempotent_and_can_be_switched_off() -> None:
    model = build_model("tiny-s", device="meta")
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    assert enable_fast_path(enable_fast_path(model)) is model
    assert is_fast(model)
    assert disable_fast_path(model) is model
    assert not is_fast(model)
    assert {name: dict(module.__dict__) for name, module in model.named_modules()} == before
    disable_fast_path(model)


def test_a_method_patched_before_is_kept_and_comes_back(models) -> None:
    model = disable_fast_path(copy.deepcopy(models[1]))
    calls = []
    original = model.model.visual.forward

    def hooked(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    model.model.visual.forward = hooked
    enable_fast_path(model)
    with torch.no_grad():
        model(**make_batch())
    assert calls == [1]
    assert disable_fast_path(model).model.visual.forward is hooked


def test_a_deep_copy_runs_on_its_own_weights(models) -> None:
    batch = make_batch()
    twin = copy.deepcopy(models[1])
    with torch.no_grad():
        for parameter in twin.model.visual.parameters():
            parameter.mul_(0.5)
        assert not torch.allclose(twin(**batch).logits, models[1](**batch).logits)
        torch.testing.assert_close(models[0](**batch).logits, models[1](**batch).logits, atol=1e-5, rtol=1e-5)


def test_what_does_not_fit_is_refused(models) -> None:
    batch = make_batch()
    with pytest.raises(ModelError, match="patches, but pixel_values holds"):
        models[1](**{**batch, "pixel_values": batch["pixel_values"][:-4]})
    with pytest.raises(ValueError, match="do not match"):
        models[1](**{**batch, "input_ids": batch["input_ids"][:, :-30], "attention_mask": None, "position_ids": None})


def test_a_model_of_another_kind_is_left_alone_with_a_warning() -> None:
    other = torch.nn.Linear(2, 2)
    with pytest.warns(UserWarning, match="Linear holds no Qwen3-VL model"):
        assert enable_fast_path(other) is other


def test_unknown_parts_stay_stock_and_are_named(models, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch()
    expected = run(models[0], batch)
    model = disable_fast_path(copy.deepcopy(models[1]))
    model.model.visual.patch_embed.proj.stride = (1, 16, 16)
    monkeypatch.setattr("egm.models.fast.tower._TABLE_KEYS", {})
    monkeypatch.setattr("egm.models.fast.tower._uses_methods", lambda tower: False)
    for block in model.model.visual.blocks:
        block.attn.scale = block.attn.__dict__.pop("scaling")
    with pytest.warns(UserWarning, match="patch embedding, vision attention, vision position tables") as caught:
        enable_fast_path(model)
    assert len(caught) == 1
    model.model.visual.patch_embed.proj.stride = (2, 16, 16)
    for block in model.model.visual.blocks:
        block.attn.scaling = block.attn.scale
    assert_same(expected, run(model, batch))
