"""The mended vision tower: one matrix product, tables made once a size, images of a size in one attention call."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from egm.errors import ModelError
from egm.models.fast.patching import is_patched, patch, stock
from egm.models.fast.rope_index import host_grids
from egm.models.fast.vision_attention import attend_frames, one_call
from egm.models.fast.vision_plan import VisionPlan, gather_index, plan_for

_PLAN = "egm_plan"
_TABLE_KEYS = {
    "get_vision_interpolation_indices_and_weights": ("interp_indices", "interp_weights", 1),  # seen in 5.17 to 5.23
    "get_vision_bilinear_indices_and_weights": ("bilinear_indices", "bilinear_weights", 0),  # seen in 5.10 to 5.14
}


def patch_tower(tower: Any) -> list[str]:
    """Mend a vision tower; return the names of the parts that this version builds in an unknown way."""
    unknown = []
    projection = getattr(tower.patch_embed, "proj", None)
    if isinstance(projection, nn.Conv3d) and projection.kernel_size == projection.stride and projection.groups == 1:
        patch(tower.patch_embed, "forward", _embed_patches)
    else:
        unknown.append("patch embedding")
    attentions = [block.attn for block in tower.blocks]
    if all(hasattr(a, name) for a in attentions for name in ("qkv", "proj", "num_heads", "scaling", "config")):
        for attention in attentions:
            patch(attention, "forward", _attend)
    else:
        unknown.append("vision attention")
    if _table_keys(tower):
        patch(tower.pos_embed, "forward", _look_up_positions)
        patch(tower.rotary_pos_emb, "forward", _rotary)
    elif _uses_methods(tower):
        patch(tower, "fast_pos_embed_interpolate", _interpolate)
        patch(tower, "rot_pos_emb", _rotary_of_grids)
    else:
        unknown.append("vision position tables")
        return unknown
    patch(tower, "forward", _tower_forward)
    return unknown


def _uses_methods(tower: Any) -> bool:
    """Tell whether this version makes its tables in the tower's own methods, seen in 5.5 to 5.8."""
    methods = ("fast_pos_embed_interpolate", "rot_pos_emb")
    later = hasattr(sys.modules[type(tower).__module__], "get_vision_position_ids")  # then the methods are leftovers
    return not later and all(hasattr(tower, name) for name in methods)


def _table_keys(tower: Any) -> tuple[str, str, int] | None:
    """Return under which names this version takes position tables made beforehand, and the axis that it sums over."""
    library = sys.modules[type(tower).__module__]
    return next((keys for name, keys in _TABLE_KEYS.items() if hasattr(library, name)), None)


def _embed_patches(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    """Embed flat patches: a convolution whose kernel is the whole patch is a matrix product."""
    weight = self.proj.weight
    if not torch.is_autocast_enabled(hidden_states.device.type):
        hidden_states = hidden_states.to(weight.dtype)
    return functional.linear(hidden_states, weight.flatten(1), self.proj.bias)


def _attend(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    plan, tables = kwargs.pop(_PLAN, None), kwargs.get("position_embeddings")
    if plan is None or tables is None or args or self.config._attn_implementation != "sdpa":
        return stock(self, "forward")(hidden_states, *args, **kwargs)
    return attend_frames(self, hidden_states, plan, tables)


def _look_up_positions(self: Any, plan: Any) -> Any:
    """Blend the learnt grid once a table row, then give each patch its row, where stock blends for every patch."""
    if not isinstance(plan, tuple):
        return stock(self, "forward")(plan)
    plan, axis = plan
    table = (functional.embedding(plan.taps, self.weight) * plan.weights[..., None]).sum(1)
    return functional.embedding(plan.rows, table).unsqueeze(axis)


def _rotary(self: Any, *args: Any) -> Any:
    """Compute the tables' rows with the stock code, then give each patch its row."""
    *rest, plan = args
    if not isinstance(plan, VisionPlan):
        return stock(self, "forward")(*args)
    table = stock(self, "forward")(*rest, plan.coordinates)
    if isinstance(table, tuple):
        return tuple(part.index_select(0, plan.rows) for part in table)
    return table.index_select(0, plan.rows)


def _interpolate(self: Any, grid_thw: Any) -> torch.Tensor:
    plan = plan_of(self, host_grids(grid_thw))
    table = (functional.embedding(plan.taps, self.pos_embed.weight) * plan.weights[..., None]).sum(1)
    return functional.embedding(plan.rows, table.to(self.pos_embed.weight.dtype))


def _rotary_of_grids(self: Any, grid_thw: Any) -> Any:
    grids = host_grids(grid_thw)
    plan = plan_of(self, grids)
    table = self.rotary_pos_emb(max(max(h, w) for _, h, w in grids))
    return table[plan.coordinates].flatten(1).index_select(0, plan.rows)


def plan_of(tower: Any, grids: tuple[tuple[int, int, int], ...]) -> VisionPlan:
    """Return what the tower of a model reads beside pixels and weights for pictures of these grids."""
    return plan_for(grids, tower.num_grid_per_side, tower.spatial_merge_size, tower.pos_embed.weight.device)


def _tower_forward(self: Any, hidden_states: torch.Tensor, grid_thw: Any, **kwargs: Any) -> Any:
    """Run the stock tower on tables made beforehand, with images of equal size side by side."""
    forward, grids, device = stock(self, "forward"), host_grids(grid_thw), hidden_states.device
    if any(kwargs.get(name) for name in ("output_hidden_states", "output_attentions")) or "cu_seqlens" in kwargs:
        return forward(hidden_states, torch.tensor(grids, device=device), **kwargs)
    lengths = [t * h * w for t, h, w in grids]
    if sum(lengths) != hidden_states.shape[0]:
        raise ModelError(f"the grids call for {sum(lengths)} patches, but pixel_values holds {hidden_states.shape[0]}")
    order = _order(self, grids, device)
    if order:  # the patches of images of one size side by side, so that they share an attention call
        hidden_states = hidden_states.index_select(0, _gather(lengths, order, device))
        grids = tuple(grids[i] for i in order)
    plan = plan_of(self, grids)
    if is_patched(self.blocks[0].attn):
        kwargs[_PLAN] = plan
    if keys := _table_keys(self):
        indices, weights, axis = keys
        # The stock tower hands what it takes for tables to modules that are patched to read a plan. It then sums over
        # the corners, which `_look_up_positions` has done: a single one remains, with a weight of 1.
        kwargs |= {indices: (plan, axis), weights: plan.weights.new_ones(1, 1)}
        kwargs |= {"position_ids": plan, "cu_seqlens": plan.cu_seqlens}
        if hasattr(sys.modules[type(self).__module__], "get_vision_attention_seqlens"):
            kwargs["max_seqlen"] = plan.max_seqlen
    # Where nothing reads the grid on the device, it stays on the CPU, where reading it makes nobody wait.
    unread = keys or (_PLAN in kwargs and self.config._attn_implementation == "sdpa")
    output = forward(hidden_states, torch.tensor(grids, device="cpu" if unread else device), **kwargs)
    if order:
        _restore(output, lengths, order, self.spatial_merge_size**2)
    return output


def _order(tower: Any, grids: tuple[tuple[int, int, int], ...], device: torch.device) -> list[int]:
    """Return an order of the images that puts equal sizes side by side, or nothing if theirs will do."""
    sizes = [h * w for _, h, w in grids]
    order = sorted(range(len(grids)), key=sizes.__getitem__)
    if len(set(sizes)) == 1 or order == list(range(len(grids))):
        return []
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else tower.pos_embed.weight.dtype
    attention = tower.blocks[0].attn
    if attention.config._attn_implementation != "sdpa":
        return []
    return [] if one_call(device, dtype, tower.pos_embed.embedding_dim // attention.num_heads) else order


def _gather(lengths: list[int], order: list[int], device: torch.device) -> torch.Tensor:
    """Return the indices that bring pieces of the given lengths into another order."""
    starts = list(itertools.accumulate(lengths, initial=0))
    return gather_index([starts[i] for i in order], [lengths[i] for i in order], device)


def _restore(output: Any, lengths: list[int], order: list[int], unit: int) -> None:
    """Bring the tower's output, in place, back from `order` to the order of the images."""
    inverse = [0] * len(order)
    for place, image in enumerate(order):
        inverse[image] = place
    device = output.pooler_output.device
    moved = [lengths[i] for i in order]
    tokens = _gather([length // unit for length in moved], inverse, device)
    output.last_hidden_state = output.last_hidden_state.index_select(0, _gather(moved, inverse, device))
    output.pooler_output = output.pooler_output.index_select(0, tokens)
    output.deepstack_features = [feature.index_select(0, tokens) for feature in output.deepstack_features]
