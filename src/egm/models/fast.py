"""The fast path: Qwen3-VL as transformers has it, with the parts mended that leave a GPU idle on many small images.

The stock vision tower embeds patches with a 3-D convolution, calls attention once an image and rebuilds its tables for
each; the stock model scatters visual features by boolean masks, which makes the host wait for the GPU several times a
layer. Here the convolution is the matrix product that it equals, images of one size share an attention call (on recent
GPUs in half precision all images do), tables are made once a grid size, and features are placed by index. Outputs and
gradients are the stock model's, up to the order of sums.

Only instances are patched, so it can be switched off again, and other models in the process stay as they are. To keep
the host ahead of the GPU, compute `position_ids` in the data loader, and pass `image_grid_thw` as a list.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from egm.errors import ModelError
from egm.models.rope_index import host_grids, rope_index
from egm.models.vision_attention import attend, one_call
from egm.models.vision_plan import VisionPlan, gather_index, plan_for

_PLAN = "egm_plan"
_VISUAL = "egm_visual"
_TABLE_KEYS = {
    "get_vision_interpolation_indices_and_weights": ("interp_indices", "interp_weights", 1),  # transformers >= 5.15
    "get_vision_bilinear_indices_and_weights": ("bilinear_indices", "bilinear_weights", 0),  # 5.9 to 5.14
}


def enable_fast_path(model: Any) -> Any:
    """Mend every Qwen3-VL model, dense or mixture of experts, inside `model`; a mended one stays as it is.

    Parts that this version of transformers builds in an unknown way stay stock, with a warning that names them.

    Args:
        model: A `Qwen3VLForConditionalGeneration`, or anything that holds one, such as a PEFT model.

    Returns:
        The same model.
    """
    cores = [module for module in model.modules() if _is_core(module)]
    if not cores:
        warnings.warn(f"{type(model).__name__} holds no Qwen3-VL model: nothing to make faster", stacklevel=2)
    for core in cores:
        unknown = _patch_tower(core.visual) + _patch_core(core)
        if unknown:
            warnings.warn(f"left as transformers has them: {', '.join(unknown)}", stacklevel=2)
    return model


def disable_fast_path(model: Any) -> Any:
    """Undo `enable_fast_path`, also on a copy of a mended model; do so before pickling a whole model.

    Returns:
        The same model.
    """
    for module in model.modules():
        for name, previous in module.__dict__.pop("_egm_stock", {}).items():
            if previous is None:
                delattr(module, name)
            else:
                setattr(module, name, previous)
    return model


def is_fast(model: Any) -> bool:
    """Tell whether the fast path is on anywhere in a model."""
    return any("_egm_stock" in module.__dict__ for module in model.modules())


def _is_core(module: nn.Module) -> bool:
    return all(hasattr(module, name) for name in ("visual", "language_model", "get_rope_index", "compute_3d_position_ids"))


def _patch(module: nn.Module, name: str, function: Callable[..., Any]) -> None:
    """Replace a method on one instance; a bound method, so that a deep copy of the model runs on its own weights."""
    kept: dict[str, Any] = module.__dict__.setdefault("_egm_stock", {})
    if name not in kept:
        kept[name] = module.__dict__.get(name)
        setattr(module, name, MethodType(function, module))


def _stock(module: nn.Module, name: str) -> Callable[..., Any]:
    previous = module.__dict__["_egm_stock"][name]
    return previous if previous is not None else MethodType(getattr(type(module), name), module)  # type: ignore[no-any-return]


def _patch_tower(tower: nn.Module) -> list[str]:
    unknown = []
    projection = getattr(tower.patch_embed, "proj", None)
    if isinstance(projection, nn.Conv3d) and projection.kernel_size == projection.stride and projection.groups == 1:
        _patch(tower.patch_embed, "forward", _embed_patches)
    else:
        unknown.append("patch embedding")
    attentions = [block.attn for block in tower.blocks]
    if all(hasattr(a, name) for a in attentions for name in ("qkv", "proj", "num_heads", "scaling", "config")):
        for attention in attentions:
            _patch(attention, "forward", _attend)
    else:
        unknown.append("vision attention")
    if _table_keys(tower):
        _patch(tower.pos_embed, "forward", _look_up_positions)
        _patch(tower.rotary_pos_emb, "forward", _rotary)
    elif hasattr(tower, "fast_pos_embed_interpolate") and hasattr(tower, "rot_pos_emb"):  # transformers < 5.9
        _patch(tower, "fast_pos_embed_interpolate", _interpolate)
        _patch(tower, "rot_pos_emb", _rotary_of_grids)
    else:
        unknown.append("vision position tables")
        return unknown
    _patch(tower, "forward", _tower_forward)
    return unknown


def _patch_core(core: nn.Module) -> list[str]:
    _patch(core, "get_rope_index", _get_rope_index)
    if not hasattr(core.language_model, "_deepstack_process"):
        return ["placing of visual features"]
    _patch(core, "forward", _core_forward)
    _patch(core.language_model, "forward", _language_forward)
    _patch(core.language_model, "_deepstack_process", _deepstack_process)
    return []


def _table_keys(tower: nn.Module) -> tuple[str, str, int] | None:
    """Return under which names this version takes position tables made beforehand, and the axis that it sums over."""
    library = sys.modules[type(tower).__module__]
    return next((keys for name, keys in _TABLE_KEYS.items() if hasattr(library, name)), None)


def _embed_patches(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    """Embed flat patches: a convolution whose kernel is the whole patch is a matrix product."""
    weight = self.proj.weight
    return functional.linear(hidden_states.to(weight.dtype), weight.flatten(1), self.proj.bias)


def _attend(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    plan, tables = kwargs.pop(_PLAN, None), kwargs.get("position_embeddings")
    if plan is None or tables is None or args or self.config._attn_implementation != "sdpa":
        return _stock(self, "forward")(hidden_states, *args, **kwargs)  # type: ignore[no-any-return]
    return attend(self, hidden_states, plan, tables)


def _look_up_positions(self: Any, plan: Any) -> torch.Tensor:
    """Blend the learnt grid once a table row, then give each patch its row, where stock blends for every patch."""
    if not isinstance(plan, tuple):
        return _stock(self, "forward")(plan)  # type: ignore[no-any-return]
    plan, axis = plan
    table = (functional.embedding(plan.taps, self.weight) * plan.weights[..., None]).sum(1)
    return functional.embedding(plan.rows, table).unsqueeze(axis)


def _rotary(self: Any, *args: Any) -> Any:
    """Compute the tables' rows with the stock code, then give each patch its row."""
    *rest, plan = args
    if not isinstance(plan, VisionPlan):
        return _stock(self, "forward")(*args)
    table = _stock(self, "forward")(*rest, plan.coordinates)
    if isinstance(table, tuple):
        return tuple(part.index_select(0, plan.rows) for part in table)
    return table.index_select(0, plan.rows)


def _interpolate(self: Any, grid_thw: Any) -> torch.Tensor:
    plan = _plan(self, host_grids(grid_thw))
    table = (functional.embedding(plan.taps, self.pos_embed.weight) * plan.weights[..., None]).sum(1)
    return functional.embedding(plan.rows, table.to(self.pos_embed.weight.dtype))


def _rotary_of_grids(self: Any, grid_thw: Any) -> torch.Tensor:
    grids = host_grids(grid_thw)
    plan = _plan(self, grids)
    table = self.rotary_pos_emb(max(max(h, w) for _, h, w in grids))
    return table[plan.coordinates].flatten(1).index_select(0, plan.rows)  # type: ignore[no-any-return]


def _plan(tower: Any, grids: tuple[tuple[int, int, int], ...]) -> VisionPlan:
    return plan_for(grids, tower.num_grid_per_side, tower.spatial_merge_size, tower.pos_embed.weight.device)


def _tower_forward(self: Any, hidden_states: torch.Tensor, grid_thw: Any, **kwargs: Any) -> Any:
    """Run the stock tower on tables made beforehand, with images of equal size side by side."""
    forward, grids, device = _stock(self, "forward"), host_grids(grid_thw), hidden_states.device
    if any(kwargs.get(name) for name in ("output_hidden_states", "output_attentions")) or "cu_seqlens" in kwargs:
        return forward(hidden_states, torch.tensor(grids, device=device), **kwargs)
    lengths = [t * h * w for t, h, w in grids]
    if sum(lengths) != hidden_states.shape[0]:
        raise ModelError(f"the grids call for {sum(lengths)} patches, but pixel_values holds {hidden_states.shape[0]}")
    order = _order(self, grids, device)
    if order:
        hidden_states = hidden_states.index_select(0, _gather(lengths, order, device))
        grids = tuple(grids[i] for i in order)
    plan = _plan(self, grids)
    if "_egm_stock" in self.blocks[0].attn.__dict__:
        kwargs[_PLAN] = plan
    if keys := _table_keys(self):
        indices, weights, axis = keys
        kwargs |= {indices: (plan, axis), weights: plan.weights.new_ones(1, 1)}
        kwargs |= {"position_ids": plan, "cu_seqlens": plan.cu_seqlens}
        if hasattr(sys.modules[type(self).__module__], "get_vision_attention_seqlens"):
            kwargs["max_seqlen"] = plan.max_seqlen
    on_host = keys or _PLAN in kwargs and self.config._attn_implementation == "sdpa"  # nothing will read it on the GPU
    output = forward(hidden_states, torch.tensor(grids, device="cpu" if on_host else device), **kwargs)
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
    **kwargs: Any,
) -> Any:
    """Place image features by index, then run the stock model on the embeddings; all but text with images stays stock."""
    forward = _stock(self, "forward")
    common = {"attention_mask": attention_mask, "past_key_values": past_key_values}
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
    grid = torch.tensor(host_grids(image_grid_thw))
    seen = self.visual(pixel_values.type(self.visual.dtype), grid_thw=grid, return_dict=True)
    embeddings = self.get_input_embeddings()(input_ids)
    features = seen.pooler_output.to(embeddings.device, embeddings.dtype)
    where = _places(input_ids.to(embeddings.device), self.config.image_token_id, len(features))
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
    kwargs[_VISUAL] = (where, seen.deepstack_features)
    return forward(inputs_embeds=filled, position_ids=position_ids, **common, **kwargs)


def _places(input_ids: torch.Tensor, token: int, count: int) -> torch.Tensor:
    """Return where the placeholders stand in the flattened ids, shape (count,), without the host waiting for a GPU."""
    is_token = (input_ids == token).flatten()
    found = is_token.sum()
    if found.device.type == "cpu":
        if int(found) != count:
            raise ValueError(f"Image features and image tokens do not match, tokens: {found}, features: {count}")
    else:
        torch._assert_async(found == count)
    rank = torch.where(is_token, is_token.cumsum(0) - 1, count).clamp(max=count)  # all text lands in one spare place
    places = torch.zeros(count + 1, dtype=torch.long, device=input_ids.device)
    return places.scatter_(0, rank, torch.arange(is_token.numel(), device=input_ids.device))[:count]


def _language_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    visual = kwargs.pop(_VISUAL, None)
    if visual is not None:
        kwargs["visual_pos_masks"], kwargs["deepstack_visual_embeds"] = visual
    return _stock(self, "forward")(*args, **kwargs)


def _deepstack_process(
    self: Any, hidden_states: torch.Tensor, visual_pos_masks: torch.Tensor, visual_embeds: torch.Tensor
) -> torch.Tensor:
    """Add visual features; places come as indices from `_core_forward`, as a mask from stock code."""
    if visual_pos_masks.dtype == torch.bool:
        return _stock(self, "_deepstack_process")(hidden_states, visual_pos_masks, visual_embeds)  # type: ignore[no-any-return]
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
    target = {"device": input_ids.device, "dtype": torch.long}
    return torch.from_numpy(positions).to(**target), torch.from_numpy(deltas).to(**target)
