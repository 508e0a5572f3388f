"""The decoder of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from egm.models.decode.decoder import BatchDecoder
from egm.training.grpo.recipe import GRPORecipe


def make_decoder(model: Any, processor: Any, stops: Sequence[int], recipe: GRPORecipe, *, bf16: bool) -> BatchDecoder:
    """Make what decodes in this process."""
    return BatchDecoder(
        model,
        dtype=torch.bfloat16 if bf16 else next(model.parameters()).dtype,
        stops=stops,
        pad=processor.tokenizer.pad_token_id,
        banned=[model.config.image_token_id, model.config.video_token_id],
        max_rows=recipe.rollout.rows,
        graphs=recipe.rollout.cuda_graphs,
    )
