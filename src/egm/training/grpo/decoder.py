"""The decoder of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from egm.models.decode.base import Decoder
from egm.models.families import image_tokens, trained_family
from egm.training.grpo.recipe import ROWS_TOGETHER, GRPORecipe

_LIBRARY_ROWS: Final = 64
"""Completions that are decoded together by the library's `generate` if the recipe does not say."""


def takes_fast_path(recipe: GRPORecipe, config: Any) -> bool:
    """Tell whether a recipe trains a model of this configuration with the fast path on."""
    return recipe.run.fast_path and trained_family(config).fast_path


def make_decoder(model: Any, processor: Any, stops: Sequence[int], recipe: GRPORecipe, *, bf16: bool) -> Decoder:
    """Make what decodes in this process: EGM's decoder where there is a fast path, else the library's `generate`."""
    fast, rollout = takes_fast_path(recipe, model.config), recipe.rollout
    fast = fast and rollout.engine != "transformers"
    options: dict[str, Any] = {
        "dtype": torch.bfloat16 if bf16 else next(model.parameters()).dtype,
        "stops": stops,
        "pad": processor.tokenizer.pad_token_id,
        "banned": image_tokens(model.config),
        "max_rows": rollout.rows or (ROWS_TOGETHER if fast else _LIBRARY_ROWS),
    }
    if fast:
        from egm.models.decode.decoder import BatchDecoder

        # Without kernels: what they gain rollouts was not measured, and they would join the weights in training.
        return BatchDecoder(model, graphs=rollout.cuda_graphs, kernels=False, **options)
    from egm.models.decode.library import LibraryDecoder

    return LibraryDecoder(model, trained_family(model.config), processor, **options)
