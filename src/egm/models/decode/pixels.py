"""Pictures made into `pixel_values` on the model's own device: the processor's arithmetic, where the picture is sent.

A picture is three bytes a pixel, and what the processor makes of it twenty-four; the rest of its work a GPU does in no
time. Resizing is torch's antialiased bicubic interpolation in float32, along each side and rounded to whole numbers, as
torch's interpolation of bytes, which the processor takes, does in whole numbers: they are at most a level apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch.nn.functional import interpolate

from egm.models.families import Grid, Qwen3VLFamily

_KNOWN: Final = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast")
_BICUBIC: Final = 3  # PIL's number of it
_MOST_RATIO: Final = 200  # of two sides: the processor refuses more, in its own words


def is_known(process: Any) -> bool:
    """Tell whether an image processor does what is done here."""
    steps = all(getattr(process, name, None) is True for name in ("do_resize", "do_rescale", "do_normalize"))
    scale = abs(getattr(process, "rescale_factor", 0.0) * 255 - 1) < 1e-9
    return type(process).__name__ in _KNOWN and steps and scale and process.resample == _BICUBIC


def has_usual_sides(images: Sequence[Any]) -> bool:
    """Tell whether the processor would refuse none of these pictures for its shape."""
    return all(max(image.size) <= _MOST_RATIO * min(image.size) for image in images)


def pixels_on(
    processor: Any, images: Sequence[Any], device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, list[Grid]]:
    """Make `pixel_values` on a device, which the host does not wait for.

    Args:
        processor: A processor of which `is_known` is true.
        images: Upright RGB pictures.
        device: The device.
        dtype: What the numbers are rounded to.

    Returns:
        Shape (patches, numbers of a patch), one picture after the other; and their grids.
    """
    family, process = Qwen3VLFamily(), processor.image_processor
    grids = [family.grid(processor, image.size) for image in images]
    pieces = []
    for image, (_, rows, columns) in zip(images, grids, strict=True):
        picture, size = _sent(image, device), (rows * process.patch_size, columns * process.patch_size)
        picture = picture if tuple(picture.shape[:2]) == size else _resized(picture, size)
        patches = _patches(picture, process.patch_size, process.merge_size)
        pieces.append(family.pixel_values(processor, patches).to(dtype))  # one by one, as they are four times as wide
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces), grids


def _sent(image: Any, device: torch.device) -> torch.Tensor:
    """Send a picture, shape (height, width, 3)."""
    width, height = image.size
    # From pinned memory the copy runs by itself; torch keeps that memory until it is done.
    staged = torch.empty((height, width, 3), dtype=torch.uint8, pin_memory=device.type == "cuda")
    staged.numpy()[:] = np.asarray(image)
    return staged.to(device, non_blocking=True)


def _resized(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize a picture, shape (height, width, 3), to other height and width."""
    pixels = picture.permute(2, 0, 1)[None].to(torch.float32, memory_format=torch.contiguous_format)
    # Along rows first, and whole numbers in between: what overshoots there is cut off, as where bytes are resized.
    for part in ((picture.shape[0], size[1]), size):
        pixels = interpolate(pixels, part, mode="bicubic", align_corners=False, antialias=True)
        pixels = pixels.clamp_(0, 255).round_()
    return pixels.to(torch.uint8)[0].permute(1, 2, 0)


def _patches(picture: torch.Tensor, patch: int, merge: int) -> torch.Tensor:
    """Cut a picture as `patchify` does, shape (patches, 3 * patch * patch)."""
    height, width, channels = picture.shape
    shape = (height // (patch * merge), merge, patch, width // (patch * merge), merge, patch, channels)
    return picture.reshape(shape).permute(0, 3, 1, 4, 6, 2, 5).reshape(-1, channels * patch * patch)
