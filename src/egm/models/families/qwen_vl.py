"""The Qwen-VL families: a picture as patches of any number of rows and columns, and positions on three axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from egm.codecs.resize import smart_resize
from egm.models.families.base import Family, Grid, register_family

if TYPE_CHECKING:
    from PIL.Image import Image

_LANGUAGE: Final = {
    "language_model": ("language_model.", "lm_head."),
    "embeddings": ("language_model.embed_tokens.",),
}


_SIZES: Final = (
    ("patch_size", "patch_size", "patches of {} pixels"),
    ("merge_size", "spatial_merge_size", "{0} x {0} patches a token"),
    ("temporal_patch_size", "temporal_patch_size", "{} frames a patch"),
)
"""What the image processor calls a size, what the tower's configuration does, and what it is."""


class _QwenVL(Family):
    """What all of them share; a grid is `(1, rows, columns)` of patches."""

    single_digits: ClassVar[bool] = True

    def mismatch(self, processor: Any, config: Any) -> str | None:
        """Hold the patches that are cut against those that the tower takes; see `Family.mismatch`."""
        for own, wanted, what in _SIZES:
            cut, taken = getattr(processor.image_processor, own, None), getattr(config.vision_config, wanted, None)
            if isinstance(cut, int) and isinstance(taken, int) and cut != taken:
                return f"the processor makes {what.format(cut)}, the model takes {what.format(taken)}"
        return None

    def grid(self, processor: Any, size: tuple[int, int]) -> Grid:
        """Count rows and columns of patches after resizing; see `Family.grid`."""
        return _grid_of(processor.image_processor, size)

    def placeholders(self, processor: Any, grid: Grid) -> str:
        """Write a token for each block of patches that is merged; see `Family.placeholders`."""
        _, rows, columns = grid
        token: str = processor.image_token
        return token * int(rows * columns // processor.image_processor.merge_size**2)

    def seen_size(self, processor: Any, grid: Grid) -> tuple[int, int] | None:
        """Return the size after resizing; see `Family.seen_size`."""
        patch = processor.image_processor.patch_size
        return grid[2] * patch, grid[1] * patch

    def see(self, processor: Any, image: Image) -> NDArray[np.uint8]:
        """Cut a picture into patches, one frame of each; see `Family.see`.

        Returns:
            Shape (patches, 3 * patch * patch).
        """
        images = processor.image_processor
        patch, merge = images.patch_size, images.merge_size
        _, rows, columns = self.grid(processor, image.size)
        if (columns * patch, rows * patch) == image.size:
            return patchify(np.asarray(image), patch, merge)
        raw = np.asarray(self.raw_pixels(processor, image))
        flat = raw.reshape(rows * columns, 3, images.temporal_patch_size, -1)[:, :, 0]
        # Bicubic resizing is done on uint8, so the processor's values are whole numbers already.
        return np.ascontiguousarray(flat.reshape(rows * columns, -1).astype(np.uint8))

    def pixel_values(self, processor: Any, pixels: Any) -> Any:
        """Expand patches; see `Family.pixel_values` and `expand_pixels`."""
        images = processor.image_processor
        return expand_pixels(pixels, mean=images.image_mean, std=images.image_std, temporal=images.temporal_patch_size)

    def positions(self, ids: Any, grids: Sequence[Grid], mask: Any, config: Any) -> Any:
        """Return time, height and width of each token; see `Family.positions`."""
        from egm.models.fast.rope_index import position_ids

        return position_ids(ids, grids, mask, config)

    def fields(self, grids: Sequence[Grid], *, fast: bool = False) -> dict[str, Any]:
        """Return the grids, on the host for the fast path; see `Family.fields`."""
        import torch

        return {"image_grid_thw": list(grids) if fast else torch.tensor(list(grids))}

    def token_fields(self, ids: Any, config: Any) -> dict[str, Any]:
        """Mark the placeholders of pictures; see `Family.token_fields`."""
        return {"mm_token_type_ids": (ids == config.image_token_id).long()}


@register_family
class Qwen3VLFamily(_QwenVL):
    """Qwen3-VL, the one with a fast path."""

    name: ClassVar[str] = "Qwen3-VL"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl", "qwen3_vl_moe")
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vision_tower": ("visual.patch_embed.", "visual.pos_embed.", "visual.blocks."),
        "projector": ("visual.merger.", "visual.deepstack_merger_list."),
        **_LANGUAGE,
    }
    fast_path: ClassVar[bool] = True
    batch_decoding: ClassVar[tuple[str, ...]] = ("qwen3_vl",)
    refusals: ClassVar[Mapping[str, str]] = {}


@register_family
class Qwen35Family(_QwenVL):
    """Qwen3.5."""

    name: ClassVar[str] = "Qwen3.5"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_5", "qwen3_5_moe")
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vision_tower": ("visual.patch_embed.", "visual.pos_embed.", "visual.blocks."),
        "projector": ("visual.merger.",),
        **_LANGUAGE,
    }


@register_family
class Qwen25VLFamily(_QwenVL):
    """Qwen2.5-VL."""

    name: ClassVar[str] = "Qwen2.5-VL"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vision_tower": ("visual.patch_embed.", "visual.blocks."),
        "projector": ("visual.merger.",),
        **_LANGUAGE,
    }


@lru_cache(maxsize=4096)
def _grid_of(images: Any, size: tuple[int, int]) -> Grid:
    """Return frames, rows and columns of patches after the processor's resizing."""
    limits = images.size
    columns, rows = smart_resize(
        size,
        factor=images.patch_size * images.merge_size,
        min_pixels=limits["shortest_edge"],
        max_pixels=limits["longest_edge"],
    )
    return 1, rows // images.patch_size, columns // images.patch_size


def patchify(pixels: NDArray[np.uint8], patch: int, merge: int) -> NDArray[np.uint8]:
    """Cut a picture into patches in Qwen-VL's order: blocks of `merge` x `merge` patches, row by row.

    Args:
        pixels: RGB, shape (height, width, 3); both sides multiples of `patch * merge`.
        patch: Side of a patch in pixels.
        merge: Side of a block in patches.

    Returns:
        Shape (patches, 3 * patch * patch), channel first within a patch.
    """
    height, width, channels = pixels.shape
    blocks = pixels.reshape(height // (patch * merge), merge, patch, width // (patch * merge), merge, patch, channels)
    return np.ascontiguousarray(blocks.transpose(0, 3, 1, 4, 6, 2, 5)).reshape(-1, channels * patch * patch)


def expand_pixels(pixels: Any, *, mean: Sequence[float], std: Sequence[float], temporal: int) -> Any:
    """Make the processor's `pixel_values` from uint8 patches, on whatever device they are.

    Args:
        pixels: uint8, shape (patches, channels * patch * patch).
        mean: Normalisation mean of each channel, on the scale 0-1.
        std: Normalisation deviation, likewise.
        temporal: Frames a patch spans; a still is repeated.

    Returns:
        float32, shape (patches, channels * temporal * patch * patch).
    """
    count, channels = pixels.shape[0], len(mean)
    values = pixels.float().view(count, channels, 1, -1)  # a copy
    # By numbers of the host, a channel at a time: a tensor of them would have to be sent to the device.
    for channel, (centre, width) in enumerate(zip(mean, std, strict=True)):
        values[:, channel].sub_(centre * 255).div_(width * 255)
    return values.expand(-1, -1, temporal, -1).reshape(count, -1)
