"""The language model's step in few operations: joined projections, and all that stands between two of them in one.

Joined weights are no copies. The projections that read one input are laid one below the other in one tensor, and the
model's own parameters become views of it: what an optimiser, a merge or a load writes in place is what the next step
reads. Parameters that were given other memory since (moved, loaded anew) are found out and joined again. Weights in fp8
are copies, and are made anew when a parameter has been written to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from egm.models.decode.cache import StaticKVCache, additive_mask, attend_tokens, columns_seen
from egm.models.decode.kernels.operations import JoinedWeight, NewTokens, Operations, RMSNorm, quantize_fp8
from egm.models.find_core import core_of

_LEAST_WIDTH = 16  # of a head: matrix units take no fewer


@dataclass(frozen=True, slots=True)
class _Layer:
    """The joined weights of a layer, as steps read them and as they are, and its norms."""

    qkv: JoinedWeight
    out: JoinedWeight
    gate_up: JoinedWeight
    down: JoinedWeight
    whole: tuple[JoinedWeight, JoinedWeight, JoinedWeight, JoinedWeight]
    input_norm: RMSNorm
    query_norm: RMSNorm
    key_norm: RMSNorm
    mlp_norm: RMSNorm


class FusedModel:
    """A Qwen3-VL language model with its output layer, for one new token a row.

    Args:
        policy: The model, of which `why_not_fused` says nothing.
        operations: What to compute with.
        fp8: Whether the layers' weights are rounded to fp8; the output layer's are not.

    Attributes:
        operations: As given.
    """

    def __init__(self, policy: Any, operations: Operations, *, fp8: bool = False) -> None:
        self.operations, self._fp8 = operations, fp8
        self._model = core_of(policy).language_model
        self._head = policy.get_output_embeddings()
        # Where parameters are kept, as walking through the modules at each generation would take longer than a token.
        owners = [module._parameters for module in (*self._model.modules(), self._head)]
        self._owners: list[tuple[Any, str]] = [
            (owner, name) for owner in owners for name in owner if owner[name] is not None
        ]
        self._layers: list[_Layer] = []
        self._seen: list[tuple[int, int]] = []
        self.refresh()

    def refresh(self) -> bool:
        """Take the weights of now; call it before each generation.

        Returns:
            Whether some lie elsewhere than before, so that recorded graphs would read what is no more.
        """
        seen = self._look()
        if seen == self._seen:
            return False
        moved = [place for place, _ in seen] != [place for place, _ in self._seen]
        for number, layer in enumerate(self._model.layers):
            if number == len(self._layers):
                self._layers.append(self._join(layer))
            elif moved:
                self._layers[number] = self._join(layer)
            elif self._fp8:
                _overwrite(self._layers[number], self._join(layer))
        self._seen = self._look()  # joining moves parameters
        return moved

    def _look(self) -> list[tuple[int, int]]:
        """Return where each parameter lies, and how often it has been written to."""
        parameters = (owner[name] for owner, name in self._owners)
        # Tensors of inference mode are not counted.
        return [(each.data_ptr(), 0 if each.is_inference() else each._version) for each in parameters]

    def step(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        cache: StaticKVCache,
        cursor: torch.Tensor,
        begin: torch.Tensor,
    ) -> torch.Tensor:
        """Read a token a row, and write its keys and values to the cache.

        Args:
            tokens: Shape (B,).
            positions: Theirs, shape (B,): text stands at the same in all three axes.
            cache: The cache.
            cursor: The column that they are written to, shape (1,).
            begin: The first column that each row looks at, shape (B,).

        Returns:
            Logits, shape (B, V), in the weights' type.
        """
        compute, scaling = self.operations, self._model.layers[0].self_attn.scaling
        x = self._model.embed_tokens(tokens)  # (B, width)
        cos, sin = self._model.rotary_emb(x, positions[None, :, None].expand(3, -1, 1))
        for number, layer in enumerate(self._layers):
            qkv = compute.linear(x, layer.qkv, norm=layer.input_norm)
            new = NewTokens(qkv, layer.query_norm, layer.key_norm, cos[:, 0], sin[:, 0], cursor, begin)
            attended = compute.attend(new, cache.keys[number], cache.values[number], scaling)
            x = compute.linear(attended, layer.out, residual=x)
            gated = compute.linear(x, layer.gate_up, norm=layer.mlp_norm, gated=True)
            x = compute.linear(gated, layer.down, residual=x)
        return compute.linear(x, JoinedWeight(self._head.weight.detach()), norm=_norm(self._model.norm))

    def step_with_draft(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        cache: StaticKVCache,
        columns: torch.Tensor,
        begin: torch.Tensor,
    ) -> torch.Tensor:
        """Read several tokens of the only row, one behind the other, and write their keys and values to the cache.

        Args:
            tokens: Shape (T,).
            positions: Theirs, shape (T,).
            cache: The cache, of one row.
            columns: Where they are written to, shape (T,).
            begin: The first column that the row looks at, shape (1,).

        Returns:
            Logits behind each token, shape (T, V), in the weights' type.
        """
        compute, model, scaling = self.operations, self._model, self._model.layers[0].self_attn.scaling
        x, key_heads = model.embed_tokens(tokens), model.config.num_key_value_heads
        cos, sin = (angle[0] for angle in model.rotary_emb(x, positions[None, None].expand(3, 1, -1)))
        seen = columns_seen(columns, begin, cache.keys[0].shape[2])  # (T, L)
        shared = model.config.num_attention_heads // key_heads
        mask = additive_mask(seen, x.dtype).repeat(shared, 1)
        for number, layer in enumerate(self._layers):
            qkv = compute.linear(x, layer.qkv, norm=layer.input_norm)
            query, key, value = compute.rotate(qkv, key_heads, (layer.query_norm, layer.key_norm), (cos, sin))
            keys, values = cache.keys[number], cache.values[number]
            keys.index_copy_(2, columns, key.transpose(0, 1)[None])
            values.index_copy_(2, columns, value.transpose(0, 1)[None])
            # The query heads that share a key head stand as if they were further tokens.
            query = query.view(len(x), key_heads, shared, -1).permute(1, 2, 0, 3).flatten(1, 2)[None]
            attended = scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scaling)
            attended = attended.view(key_heads, shared, len(x), -1).permute(2, 0, 1, 3).flatten(1)
            x = compute.linear(attended, layer.out, residual=x)
            gated = compute.linear(x, layer.gate_up, norm=layer.mlp_norm, gated=True)
            x = compute.linear(gated, layer.down, residual=x)
        return compute.linear(x, JoinedWeight(self._head.weight.detach()), norm=_norm(model.norm))

    def read(
        self,
        embedded: torch.Tensor,
        positions: torch.Tensor,
        last: torch.Tensor,
        cache: StaticKVCache,
        *,
        mask: torch.Tensor | None,
        where: torch.Tensor | None,
        levels: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Read rows of tokens, padded on the right, with the weights as they are.

        Args:
            embedded: Their embeddings, shape (U * T, width).
            positions: Shape (3, U, T).
            last: The place of each row's last token among all, shape (U,).
            cache: Takes the keys and values of each layer, and returns all that are looked at.
            mask: Additive, shape (U, 1, T, columns); None where each token looks at what stands before it in its row.
            where: The places of visual tokens, shape (L,); None where there are features for all tokens.
            levels: What is added to the first layers' outputs there, each of shape (L, width).

        Returns:
            Logits of what comes next in each row, shape (U, V).
        """
        compute, model, x = self.operations, self._model, embedded
        rows, length = positions.shape[1:]
        key_heads, scaling = model.config.num_key_value_heads, model.layers[0].self_attn.scaling
        cos, sin = (angle.flatten(0, 1) for angle in model.rotary_emb(x, positions))
        for number, layer in enumerate(self._layers):
            project, out, gate_up, down = layer.whole
            qkv = compute.linear(x, project, norm=layer.input_norm)
            heads = compute.rotate(qkv, key_heads, (layer.query_norm, layer.key_norm), (cos, sin))
            query, key, value = (each.view(rows, length, -1, each.shape[2]).transpose(1, 2) for each in heads)
            keys, values = cache.update(key, value, number)
            attended = attend_tokens(query, keys, values, mask, scaling).flatten(2).flatten(0, 1)
            if number == len(self._layers) - 1:  # from here on nothing is asked of other tokens
                attended, x = attended[last], x[last]
            x = compute.linear(attended, out, residual=x)
            gated = compute.linear(x, gate_up, norm=layer.mlp_norm, gated=True)
            x = compute.linear(gated, down, residual=x)
            if number < len(levels):
                x = x + levels[number] if where is None else x.index_add(0, where, levels[number].to(x.dtype))
        return compute.linear(x, JoinedWeight(self._head.weight.detach()), norm=_norm(model.norm))

    @torch.no_grad()
    def try_step(self, rows: int) -> None:
        """Run a step of so many rows on an empty cache: what kernels there are is compiled here, or raises here."""
        config, weight = self._model.config, self._head.weight
        width = self._model.layers[0].self_attn.head_dim
        shape = (rows, config.num_key_value_heads, 128, width)
        cache = StaticKVCache()
        for _ in self._layers:
            cache.keys.append(weight.new_zeros(shape))
            cache.values.append(weight.new_zeros(shape))
        tokens, begin = (torch.zeros(rows, dtype=torch.long, device=weight.device) for _ in range(2))
        cursor = torch.full((1,), 100, device=weight.device)
        logits = self.step(tokens, begin + 100, cache, cursor, begin)
        self.operations.likeliest(logits, torch.zeros(logits.shape[1], dtype=torch.bool, device=weight.device))
        if weight.device.type == "cuda":
            torch.cuda.synchronize(weight.device)

    @torch.no_grad()
    def try_read(self, rows: int, length: int = 64) -> None:
        """Read rows of so many tokens: what kernels there are is compiled here, or raises here."""
        weight = self._model.embed_tokens.weight
        positions = torch.zeros((3, rows, length), dtype=torch.long, device=weight.device)
        last = torch.arange(1, rows + 1, device=weight.device) * length - 1
        embedded = weight[:1].expand(rows * length, -1).contiguous()
        self.read(embedded, positions, last, StaticKVCache(), mask=None, where=None, levels=())
        if weight.device.type == "cuda":
            torch.cuda.synchronize(weight.device)

    def _join(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        parts: list[list[nn.Linear]] = [[attention.q_proj, attention.k_proj, attention.v_proj], [attention.o_proj]]
        parts += [[mlp.gate_proj, mlp.up_proj], [mlp.down_proj]]
        qkv, out, gate_up, down = (JoinedWeight(_joined(each)) for each in parts)
        whole = (qkv, out, gate_up, down)
        if self._fp8:
            qkv, out, gate_up, down = (quantize_fp8(each.values) for each in whole)
        return _Layer(
            qkv=qkv,
            out=out,
            gate_up=gate_up,
            down=down,
            whole=whole,
            input_norm=_norm(layer.input_layernorm),
            query_norm=_norm(attention.q_norm),
            key_norm=_norm(attention.k_norm),
            mlp_norm=_norm(layer.post_attention_layernorm),
        )


def why_not_fused(policy: Any) -> str | None:
    """Tell what of a model is not built as `FusedModel` computes it; None if all of it is."""
    core, head = core_of(policy), policy.get_output_embeddings()
    if core is None or not getattr(core.language_model, "layers", None):
        return "it has no layers where Qwen3-VL has them"
    model = core.language_model
    if getattr(model.config, "hidden_act", None) != "silu":
        return "its activation is not SiLU"
    parts: list[tuple[str, Any]] = [("output layer", head)]
    for layer in model.layers:
        for owner, names in (("self_attn", ("q_proj", "k_proj", "v_proj", "o_proj")), ("mlp", _MLP)):
            parts += [(name, getattr(getattr(layer, owner, None), name, None)) for name in names]
        norms = [layer.input_layernorm, layer.post_attention_layernorm]
        norms += [getattr(layer.self_attn, name, None) for name in ("q_norm", "k_norm")]
        if not all(hasattr(norm, "variance_epsilon") for norm in norms):
            return "its norms are not Qwen3-VL's"
    for name, part in parts:
        if type(part) is not nn.Linear or part.bias is not None:
            return f"its {name} is no linear layer without a bias"
    if {type(part.weight.data) for _, part in parts} != {torch.Tensor}:
        return "its weights are spread over processes, or packed"
    if len({(part.weight.dtype, part.weight.device) for _, part in parts}) > 1:
        return "its layers are of several types or on several devices"
    width = model.layers[0].self_attn.head_dim
    if width < _LEAST_WIDTH or width & (width - 1):
        return f"its heads are {width} wide, and not a power of two from {_LEAST_WIDTH}"
    return None


_MLP = ("gate_proj", "up_proj", "down_proj")


def _joined(parts: Sequence[nn.Linear]) -> torch.Tensor:
    """Return the weights of projections one below the other, (N, K); their parameters are views of it from then on."""
    weights = [part.weight.data for part in parts]
    places = [weight.data_ptr() for weight in weights]
    after = [weight.data_ptr() + weight.numel() * weight.element_size() for weight in weights]
    storages = {weight.untyped_storage().data_ptr() for weight in weights}
    rows, inputs = sum(len(weight) for weight in weights), weights[0].shape[1]
    if len(storages) == 1 and places[1:] == after[:-1] and all(weight.is_contiguous() for weight in weights):
        return weights[0].as_strided((rows, inputs), (inputs, 1))
    joined = torch.cat(weights)
    for part, view in zip(parts, torch.split(joined, [len(weight) for weight in weights]), strict=True):
        part.weight.data = view
    return joined


def _norm(module: Any) -> RMSNorm:
    return RMSNorm(module.weight.detach(), module.variance_epsilon)


def _overwrite(ours: _Layer, new: _Layer) -> None:
    """Write weights in fp8 where recorded graphs read them."""
    for name in ("qkv", "out", "gate_up", "down"):
        old, fresh = getattr(ours, name), getattr(new, name)
        old.values.copy_(fresh.values)
        old.scale.copy_(fresh.scale)
