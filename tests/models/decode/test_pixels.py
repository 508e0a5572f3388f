"""Pictures made into pixel values on the model's device, against the library's processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from egm.models import build_processor
from egm.models.decode.pixels import has_usual_sides, is_known, pixels_on
from egm.models.decode.prompt_batch import make_prompts

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor()


def picture(width: int, height: int) -> Image.Image:
    """A smooth picture with noise on it, so that resizing meets edges as well as flats."""
    draw = np.random.default_rng(width * height)
    wave = np.sin(np.arange(width) / 9)[None, :, None] + np.cos(np.arange(height) / 7)[:, None, None]
    pixels = 128 + 50 * wave + draw.integers(-70, 70, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_pictures_that_need_no_resizing_are_the_processor_s(processor: Any) -> None:
    images = [picture(96, 64), picture(64, 160)]
    expected = processor.image_processor(images=images, return_tensors="pt")
    pixels, grids = pixels_on(processor, images, CPU)
    assert [list(grid) for grid in grids] == expected["image_grid_thw"].tolist()
    torch.testing.assert_close(pixels, expected["pixel_values"], atol=1e-6, rtol=0)
    assert torch.equal(pixels_on(processor, images, CPU, torch.bfloat16)[0], pixels.bfloat16())


@pytest.mark.parametrize("size", [(640, 480), (333, 501), (90, 70), (40, 40), (1200, 100)])
def test_resized_pictures_are_the_processor_s_up_to_one_level(processor: Any, size: tuple[int, int]) -> None:
    images = [picture(*size)]
    expected = processor.image_processor(images=images, return_tensors="pt")
    pixels, grids = pixels_on(processor, images, CPU)
    assert [list(grid) for grid in grids] == expected["image_grid_thw"].tolist()
    levels = (pixels - expected["pixel_values"]).abs() * 127.5
    assert levels.max() < 1.01
    assert levels.mean() < 0.1


def test_prompts_are_the_same_either_way(processor: Any) -> None:
    texts = [f"<|vision_start|><|image_pad|><|vision_end|>the {word}" for word in ("cup", "bowl")]
    images = [picture(96, 64), picture(64, 64)]
    ours, theirs = (make_prompts(processor, texts, [1, 0], images, device=device) for device in (CPU, None))
    assert (ours.ids, ours.pictures, ours.grids) == (theirs.ids, theirs.pictures, theirs.grids)
    torch.testing.assert_close(ours.pixels, theirs.pixels, atol=1e-6, rtol=0)


def test_what_the_processor_does_otherwise_is_left_to_it(processor: Any) -> None:
    assert is_known(processor.image_processor)
    other = build_processor()
    other.image_processor.do_normalize = False
    assert not is_known(other.image_processor)
    text = "<|vision_start|><|image_pad|><|vision_end|>"
    prompts = make_prompts(other, [text], [0], [picture(64, 64)], device=CPU)
    assert prompts.pixels.min() >= 0
    assert has_usual_sides([picture(400, 2)])
    assert not has_usual_sides([picture(402, 2)])
    with pytest.raises(ValueError, match="aspect ratio"):
        make_prompts(processor, [text], [0], [picture(402, 2)], device=CPU)
