"""Costs from a model's shape, against torch's own count and the sizes of the weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

from egm.models import build_model, build_processor
from egm.models.costs import Cost, CostModel, cost_model, cost_model_of
from egm.models.presets import build_config, get_preset
from egm.models.shapes import Text, Vision

MIXED = Text(64, 2, 4, 2, 128, 16, 1000, 1e4, (4, 2, 2), experts=8, active_experts=2, expert_intermediate=32)


def counted(model: Any, **inputs: Any) -> tuple[int, Any]:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        output = model(**inputs)
    return counter.get_total_flops(), output


@pytest.mark.parametrize("size", [(320, 240), (160, 384), (900, 700), (20, 30)])
def test_a_dense_models_operations_are_those_that_torch_counts(size: tuple[int, int]) -> None:
    model, processor, costs = build_model("tiny-s"), build_processor(), cost_model("tiny-s")
    assert costs is not None
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Locate the cup."}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], images=[Image.new("RGB", size)], return_tensors="pt")
    assert costs.patches(size) == int(inputs["image_grid_thw"].prod())
    length = inputs["input_ids"].shape[1]
    whole, output = counted(model, **inputs, logits_to_keep=1, use_cache=True)
    assert costs.answer(size, prompt=length, written=1).operations == whole
    total = whole
    for _ in range(3):
        more, output = counted(
            model, input_ids=output.logits[:, -1:].argmax(-1), past_key_values=output.past_key_values, use_cache=True
        )
        total += more
    assert costs.answer(size, prompt=length, written=4).operations == total


def test_of_a_mixture_the_experts_that_a_token_visits_count() -> None:
    preset = get_preset("30B-A3B")
    small = replace(preset, text=MIXED, vision=Vision(32, 2, 2, 64, (0,), positions=16))
    config = build_config(small)
    config._experts_implementation = "eager"  # grouped products are not counted
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()
    whole, _ = counted(model, input_ids=torch.arange(40)[None], logits_to_keep=1)
    costs = CostModel(MIXED, small.vision)  # type: ignore[arg-type]
    assert costs.pass_over(40, 40, scored=1).operations == whole
    active, all_ = (each.bytes for each in (costs.pass_over(1, 1, scored=1), costs.pass_over(9999, 1, scored=1)))
    weights = sum(weight.numel() for name, weight in model.named_parameters() if "experts" in name)
    cache = 2 * MIXED.layers * 2 * 16
    assert all_ / 2 - active / 2 == pytest.approx(weights * 6 / 8 + 9998 * cache)
    read = cost_model_of(json.loads(config.to_json_string()))
    assert read is not None
    assert read.text.experts == 8
    assert read.pass_over(3, 3, scored=1) == costs.pass_over(3, 3, scored=1)


def test_a_pass_reads_the_weights_once_for_all_that_are_answered_together() -> None:
    costs = cost_model("8B")
    assert costs is not None
    step = costs.pass_over(1, 1, scored=1)
    preset = get_preset("8B")
    tower = costs.look((640, 640)).bytes / 2
    head = preset.text.hidden * preset.text.vocabulary
    # The embedding is looked up, not multiplied with; norms and biases are a thousandth.
    assert step.bytes / 2 + tower + head == pytest.approx(preset.parameters, rel=2e-3)
    assert costs.pass_over(1, 1, scored=1, at_once=8).bytes == pytest.approx(step.bytes / 8, rel=1e-3)
    assert step.operations == pytest.approx(step.bytes, rel=1e-3)  # a product and a sum for two bytes
    long = costs.pass_over(1, 10_001, scored=1).bytes - step.bytes
    assert long == 2 * 2 * 36 * 8 * 128 * 10_000


def test_longer_answers_cost_what_their_steps_do() -> None:
    costs = cost_model("2B")
    assert costs is not None
    size = (448, 448)
    steps = [costs.pass_over(1, 300 + number, scored=1) for number in (1, 2, 3)]
    whole = sum(steps, costs.answer(size, prompt=300, written=1))
    found = costs.answer(size, prompt=300, written=4)
    assert (found.operations, found.bytes) == pytest.approx((whole.operations, whole.bytes))
    assert Cost(1, 2) + Cost(3, 4) == Cost(4, 6)


def test_models_are_known_by_name_or_by_their_configuration(tmp_path: Path) -> None:
    assert cost_model("egm-tiny") == cost_model("tiny-s")
    assert cost_model("nvidia/EGM-8B") == cost_model("Qwen/Qwen3-VL-8B-Thinking")
    assert cost_model("InternVL3.5-1B") is None
    assert cost_model("somebody/else") is None
    config = build_config(get_preset("tiny-m"))
    config.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 4096, "longest_edge": 112896}}')
    named, read = cost_model("tiny-m"), cost_model(str(tmp_path))
    assert named is not None
    assert read is not None
    assert read.answer((640, 480), prompt=99, written=9) == named.answer((640, 480), prompt=99, written=9)
    row = json.loads((tmp_path / "config.json").read_text())
    for spoilt in (
        {"model_type": "llava"},
        {"text_config": {}},
        {"vision_config": None},
        {"model_type": "qwen3_vl_moe"},
    ):
        assert cost_model_of({**row, **spoilt}) is None
    (tmp_path / "config.json").write_text("[")
    assert cost_model(str(tmp_path)) is None


def test_layers_in_fp8_are_half_of_what_is_read_of_them() -> None:
    text, costs = get_preset("8b").text, cost_model("8b")
    assert costs is not None
    whole, half = (each.pass_over(1, 400, scored=1) for each in (costs, replace(costs, layer_width=1)))
    head, cache = 2 * text.hidden * text.vocabulary, 4 * text.layers * text.kv_heads * text.head_dim * 400
    assert half.bytes - head - cache == pytest.approx((whole.bytes - head - cache) / 2)
    assert half.operations == whole.operations
