"""The core patched: visual features placed by index, M-RoPE positions computed for the batch at once.

In shapes, B is the samples of a batch and T their length, M the visual tokens of the pictures that the tower sees, L
the image tokens in the text (as many as M, unless pictures are shared), and D the width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from egm.models.fast.patching import patch, stock
from egm.models.fast.rope_index import host_grids, rope_index

VISUAL = "egm_visual"
"""Keyword by which `_core_forward` hands indices and features through the stock forward to the language model."""


def patch_core(core: Any) -> list[str]:
    """Mend a model around its tower; return the names of the parts that this version builds in an unknown way."""
    patch(core, "get_rope_index", _get_rope_index)
    if not hasattr(core.language_model, "_deepstack_process"):
        return ["placing of visual features"]
    patch(core, "forward", _core_forward)
    patch(core.language_model, "forward", _language_forward)
    patch(core.language_model, "_deepstack_process", _deepstack_process)
    return []


def _core_forward(
    self: Any,
    input_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    past_key_values: Any = None,
    inputs_embeds: torch.Tensor | None = None,
    pixel_values: torch.Tensor | None = None,
    pixel_values_videos: torch.Tensor | None = None,
    image_grid_thw: Any = None,
    video_grid_thw: Any = None,
    mm_token_type_ids: torch.Tensor | None = None,
    pictures: Sequence[int] | None = None,
    **kwargs: Any,
) -> Any:
    """Place image features by index, then run the stock model on the embeddings; without images all stays stock.

    With `pictures`, `pixel_values` and `image_grid_thw` hold each picture once, and it says which one stands at each
    image of the text: many answers to one question share what the tower sees.
    """
    forward = stock(self, "forward")
    common = {"attention_mask": attention_mask, "past_key_values": past_key_values}
    kwargs = {name: value for name, value in kwargs.items() if value is not None}  # some versions pass None on
    # Videos, and features that somebody computed before, are rare: they go the stock way, as does a decoding step.
    special = pixel_values_videos is not None or any(name.startswith(("image_", "mm_encoder")) for name in kwargs)
    if pixel_values is None or input_ids is None or inputs_embeds is not None or special:
        if image_grid_thw is not None:
            image_grid_thw = torch.as_tensor(image_grid_thw)
            image_grid_thw = image_grid_thw if pixel_values is None else image_grid_thw.to(pixel_values.device)
        return forward(
            input_ids=input_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            image_grid_thw=image_grid_thw,
            video_grid_thw=video_grid_thw,
            mm_token_type_ids=mm_token_type_ids,
            **common,
            **kwargs,
        )
    grid = torch.tensor(host_grids(image_grid_thw))  # (images, 3), on the CPU: it is read there
    if not torch.is_autocast_enabled(pixel_values.device.type):  # else the first product casts, once
        pixel_values = pixel_values.type(self.visual.dtype)
    vision_output = self.visual(pixel_values, grid_thw=grid, return_dict=True)
    embeddings = self.get_input_embeddings()(input_ids)
    if torch.is_autocast_enabled(embeddings.device.type):  # the residual stream too, as in a model loaded in that type
        embeddings = embeddings.to(torch.get_autocast_dtype(embeddings.device.type))
    features, deepstack = (
        vision_output.pooler_output,
        vision_output.deepstack_features,
    )  # (M, D), and so for each level of DeepStack
    if pictures is not None:  # (M, D) -> (L, D): a picture's features as often as the text shows it
        index = _shared(grid, pictures, self.config.vision_config.spatial_merge_size).to(features.device)
        features, deepstack = features[index], [level[index] for level in deepstack]
        grid = grid[list(pictures)]
    features = features.to(embeddings.device, embeddings.dtype)
    where = _places(input_ids.to(embeddings.device), self.config.image_token_id, len(features))  # (L,), below B * T
    # By index, where stock scatters by a mask: how many places a mask has, the host has to ask the GPU.
    filled = embeddings.flatten(0, 1).index_copy(0, where, features).view_as(embeddings)
    if position_ids is None:
        position_ids = self.compute_3d_position_ids(
            input_ids=input_ids,
            inputs_embeds=filled,
            image_grid_thw=grid,
            video_grid_thw=video_grid_thw,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            mm_token_type_ids=mm_token_type_ids,
        )
    kwargs[VISUAL] = (where, deepstack)
    return forward(inputs_embeds=filled, position_ids=position_ids, **common, **kwargs)


def _shared(grid: torch.Tensor, pictures: Sequence[int], merge: int) -> torch.Tensor:
    """Return which features stand in a text that shows these pictures one after the other, shape (L,)."""
    counts = (grid.prod(dim=1) // merge**2).tolist()
    begins = [end - count for end, count in zip(accumulate(counts), counts, strict=True)]
    return torch.cat([torch.arange(begins[p], begins[p] + counts[p]) for p in pictures])


def _places(input_ids: torch.Tensor, token: int, count: int) -> torch.Tensor:
    """Return where the placeholders stand in the flattened ids, shape (count,), without the host waiting for a GPU."""
    is_token = (input_ids == token).flatten()  # (B * T,)
    found = is_token.sum()
    if found.device.type == "cpu":
        if int(found) != count:
            raise ValueError(f"Image features and image tokens do not match, tokens: {found}, features: {count}")
    else:
        torch._assert_async(found == count)  # told by the GPU when it gets there
    # `nonzero` would do, but its size depends on the data, and the host would wait for it. Instead the n-th placeholder
    # writes its index to place n; all text lands in one spare place at the end, which is cut off.
    rank = torch.where(is_token, is_token.cumsum(0) - 1, count).clamp(max=count)
    places = torch.zeros(count + 1, dtype=torch.long, device=input_ids.device)
    return places.scatter_(0, rank, torch.arange(is_token.numel(), device=input_ids.device))[:count]


def _language_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Give the stock language model indices in place of its mask; it only passes them on to `_deepstack_process`."""
    visual = kwargs.pop(VISUAL, None)
    if visual is not None:
        kwargs["visual_pos_masks"], kwargs["deepstack_visual_embeds"] = visual
    return stock(self, "forward")(*args, **kwargs)


def _deepstack_process(
    self: Any, hidden_states: torch.Tensor, visual_pos_masks: torch.Tensor | None, visual_embeds: torch.Tensor
) -> Any:
    """Add visual features; places come as indices from `_core_forward`, as a mask from stock code.

    Without places there is a feature for every token: 0 where it is text.
    """
    if visual_pos_masks is None:
        return hidden_states + visual_embeds
    if visual_pos_masks.dtype == torch.bool:
        return stock(self, "_deepstack_process")(hidden_states, visual_pos_masks, visual_embeds)
    features = visual_embeds.to(hidden_states.device, hidden_states.dtype)
    places = visual_pos_masks.to(hidden_states.device)
    return hidden_states.flatten(0, 1).index_add(0, places, features).view_as(hidden_states)


def _get_rope_index(
    self: Any,
    input_ids: torch.Tensor,
    mm_token_type_ids: torch.Tensor,
    image_grid_thw: Any = None,
    video_grid_thw: Any = None,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute positions on the host for the batch at once, where stock asks the GPU several times a sample."""
    del kwargs
    positions, deltas = rope_index(
        mm_token_type_ids.cpu().numpy(),
        () if image_grid_thw is None else host_grids(image_grid_thw),
        () if video_grid_thw is None else host_grids(video_grid_thw),
        None if attention_mask is None else attention_mask.cpu().numpy(),
        self.config.vision_config.spatial_merge_size,
    )
    return torch.from_numpy(positions).to(input_ids.device), torch.from_numpy(deltas).to(input_ids.device)
