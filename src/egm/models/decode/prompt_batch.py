"""Questions as a Qwen3-VL model takes them: each text tokenised once, each picture processed once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

_SHARE = 16  # pictures that a thread takes at once
_THREADS = 8


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Questions about one picture each.

    Attributes:
        ids: Tokens of each question, placeholders of the picture included.
        pictures: Which picture each question is about.
        pixels: `pixel_values` of the pictures, one after the other.
        grids: Patch grid of each picture.
    """

    ids: list[list[int]]
    pictures: list[int]
    pixels: torch.Tensor
    grids: list[tuple[int, int, int]]

    def part(self, chosen: Sequence[int]) -> PromptBatch:
        """Return the prompts with these numbers, with the pictures that they are about."""
        shown = sorted({self.pictures[number] for number in chosen})
        ids, pictures = [self.ids[number] for number in chosen], [self.pictures[number] for number in chosen]
        if len(shown) == len(self.grids):
            return PromptBatch(ids, pictures, self.pixels, self.grids)
        parts = torch.split(self.pixels, [prod(grid) for grid in self.grids])
        places = {picture: place for place, picture in enumerate(shown)}
        return PromptBatch(
            ids,
            [places[picture] for picture in pictures],
            torch.cat([parts[picture] for picture in shown]),
            [self.grids[picture] for picture in shown],
        )


def make_prompts(
    processor: Any, texts: Sequence[str], pictures: Sequence[int], images: Sequence[Any], *, threads: int = 1
) -> PromptBatch:
    """Make the prompts.

    Args:
        processor: A processor of the Qwen3-VL family.
        texts: The prompts as the chat template writes them, with one placeholder for the picture.
        pictures: Which image each question is about.
        images: Upright RGB pictures.
        threads: How many threads process them.
    """
    pixels, grids = _see(processor.image_processor, images, threads)
    merge, token = processor.image_processor.merge_size**2, processor.image_token
    filled = [
        text.replace(token, token * (prod(grids[picture]) // merge))
        for text, picture in zip(texts, pictures, strict=True)
    ]
    ids = processor.tokenizer(filled, add_special_tokens=False)["input_ids"]
    return PromptBatch(ids, list(pictures), pixels, grids)


def threads_for(images: Sequence[Any]) -> int:
    """Return how many threads are worth their while for so many pictures, beside a model that is on a GPU."""
    return max(1, min(_THREADS, os.cpu_count() or 1, len(images) // _SHARE))


def _see(process: Any, images: Sequence[Any], threads: int) -> tuple[torch.Tensor, list[tuple[int, int, int]]]:
    def see(part: Sequence[Any]) -> Any:
        return process(images=list(part), return_tensors="pt")

    if threads == 1:
        seen = [see(images)]
    else:
        with ThreadPoolExecutor(threads) as pool:
            seen = list(pool.map(see, [images[i : i + _SHARE] for i in range(0, len(images), _SHARE)]))
    pixels = [part["pixel_values"] for part in seen]
    grids = [(int(t), int(h), int(w)) for part in seen for t, h, w in part["image_grid_thw"].tolist()]
    return pixels[0] if len(pixels) == 1 else torch.cat(pixels), grids
