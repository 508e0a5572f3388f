"""Questions as a model takes them: each text tokenised once, each picture processed once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch

from egm.models.decode.pixels import has_usual_sides, is_known, pixels_on
from egm.models.decode.prefixes import PictureSource
from egm.models.families import Family, Grid, Qwen3VLFamily

_SHARE = 16  # pictures that a thread takes at once
_THREADS = 8


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Questions about one picture each.

    Attributes:
        ids: Tokens of each question, placeholders of the picture included.
        pictures: Which picture each question is about.
        pixels: The pictures, one after the other: `pixel_values` where the fast path reads them, else in whole numbers
            as `Family.see` leaves them.
        grids: How each picture is cut, by `Family.grid`.
        sources: The pictures themselves, where it is worth knowing whether one has come before.
    """

    ids: list[list[int]]
    pictures: list[int]
    pixels: torch.Tensor
    grids: list[Any]  # of `Grid`
    sources: tuple[PictureSource, ...] = field(default=(), kw_only=True)

    def part(self, chosen: Sequence[int]) -> PromptBatch:
        """Return the prompts with these numbers, with the pictures that they are about."""
        shown = sorted({self.pictures[number] for number in chosen})
        ids, pictures = [self.ids[number] for number in chosen], [self.pictures[number] for number in chosen]
        if len(shown) == len(self.grids):
            return PromptBatch(ids, pictures, self.pixels, self.grids, sources=self.sources)
        places = {picture: place for place, picture in enumerate(shown)}
        return PromptBatch(
            ids,
            [places[picture] for picture in pictures],
            self.pixels_of(shown),
            [self.grids[picture] for picture in shown],
            sources=tuple(self.sources[picture] for picture in shown) if self.sources else (),
        )

    def pixels_of(self, pictures: Sequence[int]) -> torch.Tensor:
        """Return the pixels of some pictures, one after the other."""
        if list(pictures) == list(range(len(self.grids))):
            return self.pixels
        parts = torch.split(self.pixels, [prod(grid) for grid in self.grids])
        return torch.cat([parts[picture] for picture in pictures])

    def pixel_values(self, pictures: Sequence[int], family: Family, processor: Any, device: torch.device) -> Any:
        """Return `pixel_values` of some pictures, one after the other, on a device."""
        pixels = self.pixels_of(pictures).to(device)
        return family.pixel_values(processor, pixels) if pixels.dtype == torch.uint8 else pixels


def make_prompts(
    processor: Any,
    texts: Sequence[str],
    pictures: Sequence[int],
    images: Sequence[Any],
    *,
    family: Family | None = None,
    fast: bool = True,
    threads: int = 1,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> PromptBatch:
    """Make the prompts.

    Args:
        processor: The model's processor.
        texts: The prompts as the chat template writes them, with one placeholder for the picture.
        pictures: Which image each question is about.
        images: Upright RGB pictures.
        family: The model's family; Qwen3-VL if not given.
        fast: Whether the fast path reads the pictures, which takes `pixel_values`.
        threads: How many threads process them, for the fast path, where the processor does.
        device: A GPU that pictures are made into `pixel_values` on, for the fast path; None, and pictures that it is
            not known for, leave that to the processor.
        dtype: What `pixel_values` are rounded to there.
    """
    family = family or Qwen3VLFamily()
    grids: list[Grid]
    if fast and device is not None and is_known(processor.image_processor) and has_usual_sides(images):
        pixels, grids = pixels_on(processor, images, device, dtype)
    elif fast:
        pixels, grids = _see(processor.image_processor, images, threads)
    else:
        pixels = torch.cat([torch.from_numpy(family.see(processor, image)) for image in images])
        grids = [family.grid(processor, image.size) for image in images]
    token = processor.image_token
    filled = [
        text.replace(token, family.placeholders(processor, grids[picture]))
        for text, picture in zip(texts, pictures, strict=True)
    ]
    ids = processor.tokenizer(filled, add_special_tokens=False)["input_ids"]
    return PromptBatch(ids, list(pictures), pixels, grids, sources=tuple(PictureSource(image) for image in images))


def threads_for(images: Sequence[Any]) -> int:
    """Return how many threads are worth their while for so many pictures, beside a model that is on a GPU."""
    return max(1, min(_THREADS, os.cpu_count() or 1, len(images) // _SHARE))


def _see(process: Any, images: Sequence[Any], threads: int) -> tuple[torch.Tensor, list[Grid]]:
    def see(part: Sequence[Any]) -> Any:
        return process(images=list(part), return_tensors="pt")

    if threads == 1:
        seen = [see(images)]
    else:
        with ThreadPoolExecutor(threads) as pool:
            seen = list(pool.map(see, [images[i : i + _SHARE] for i in range(0, len(images), _SHARE)]))
    pixels = [part["pixel_values"] for part in seen]
    grids: list[Grid] = [(int(t), int(h), int(w)) for part in seen for t, h, w in part["image_grid_thw"].tolist()]
    return pixels[0] if len(pixels) == 1 else torch.cat(pixels), grids
