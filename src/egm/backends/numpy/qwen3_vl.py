"""Qwen3-VL's forward pass in NumPy: for small models on a CPU, where importing torch takes longer than answering.

The architecture is that of `transformers.models.qwen3_vl` (Apache-2.0), dense, one still image or none, sequences
of one length, in float32: a vision tower with 2-D rotary positions, DeepStack, and a decoder with interleaved M-RoPE.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Weights: TypeAlias = Mapping[str, Floats]
Grid: TypeAlias = tuple[int, int]
"""Rows and columns of patches."""

_FEW_ROWS = 32
_BLAS_ROWS = 8  # OpenBLAS multiplies so many rows at a time, and 8 of them sooner than 5 to 7


def with_prefix(weights: Weights, prefix: str) -> Weights:
    """Return the weights whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


class VisionTower:
    """Patches in, features out.

    Args:
        config: `vision_config`.
        weights: Everything under `model.visual.`, without that prefix.
    """

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        self.config, self.weights = config, weights
        # Both frames of a patch are the same still picture, so their weights add up.
        self.embed = weights["patch_embed.proj.weight"].sum(axis=2).reshape(config["hidden_size"], -1)

    def __call__(self, patches: Floats, grid: Grid) -> tuple[Floats, list[Floats]]:
        """Look at one picture.

        Args:
            patches: Shape (rows * columns, channels * patch * patch), in row-major order of the grid.
            grid: Rows and columns, multiples of the merge size.

        Returns:
            Features, one row a visual token, and the same from each DeepStack level.
        """
        merge = self.config["spatial_merge_size"]
        rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
        # The patches of one visual token stand together.
        order = np.lexsort((columns % merge, rows % merge, columns // merge, rows // merge))
        rows, columns = rows[order], columns[order]
        hidden = patches[order] @ self.embed.T + self.weights["patch_embed.proj.bias"]
        hidden += self._positions(grid)[order]
        size = self.config["hidden_size"] // self.config["num_heads"]
        theta = (self.config.get("rope_parameters") or {}).get("rope_theta", 10_000.0)
        frequencies = theta ** -(np.arange(0, size // 2, 2, dtype=np.float32) / np.float32(size // 2))
        angles = np.concatenate([rows[:, None] * frequencies, columns[:, None] * frequencies], axis=1)
        rotary = rotation(angles)
        levels = []
        for index in range(self.config["depth"]):
            hidden = self._block(f"blocks.{index}.", hidden, rotary)
            if index in self.config["deepstack_visual_indexes"]:
                level = self.config["deepstack_visual_indexes"].index(index)
                levels.append(self._merge(f"deepstack_merger_list.{level}.", hidden, norm_first=False))
        return self._merge("merger.", hidden, norm_first=True), levels

    def _positions(self, grid: Grid) -> Floats:
        """The learnt square of positions, stretched over the grid corner to corner; row-major."""
        table = self.weights["pos_embed.weight"]
        side = math.isqrt(len(table))
        table = table.reshape(side, side, -1)
        for axis, count in enumerate(grid):
            at = np.linspace(0, side - 1, count, dtype=np.float32)
            low = at.astype(np.int64)
            share = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            table = table.take(low, axis) * (1 - share) + table.take(np.minimum(low + 1, side - 1), axis) * share
        return table.reshape(grid[0] * grid[1], -1)

    def _block(self, name: str, hidden: Floats, rotary: tuple[Floats, Floats]) -> Floats:
        heads = self.config["num_heads"]
        queries, keys, values = (
            self._linear(f"{name}attn.qkv", self._norm(f"{name}norm1", hidden))
            .reshape(len(hidden), 3, heads, -1)
            .transpose(1, 2, 0, 3)
        )
        seen = attention(rotate(queries, rotary), rotate(keys, rotary), values)
        hidden = hidden + self._linear(f"{name}attn.proj", seen)
        inner = gelu_tanh(self._linear(f"{name}mlp.linear_fc1", self._norm(f"{name}norm2", hidden)))
        return hidden + self._linear(f"{name}mlp.linear_fc2", inner)

    def _merge(self, name: str, hidden: Floats, *, norm_first: bool) -> Floats:
        width = self.config["hidden_size"] * self.config["spatial_merge_size"] ** 2
        if norm_first:
            hidden = self._norm(f"{name}norm", hidden).reshape(-1, width)
        else:
            hidden = self._norm(f"{name}norm", hidden.reshape(-1, width))
        return self._linear(f"{name}linear_fc2", gelu(self._linear(f"{name}linear_fc1", hidden)))

    def _linear(self, name: str, x: Floats) -> Floats:
        return np.asarray(x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"])

    def _norm(self, name: str, x: Floats) -> Floats:
        x = x - x.mean(axis=-1, keepdims=True)
        x /= np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(1e-6))
        return np.asarray(x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"])


class LanguageModel:
    """The language model.

    Args:
        config: `text_config`.
        weights: Everything under `model.language_model.`, without that prefix.
        head: Output embeddings, shape (vocabulary, hidden).
    """

    def __init__(self, config: Mapping[str, Any], weights: Weights, head: Floats) -> None:
        self.config, self.weights, self.head = config, weights, head
        self.embeddings = weights["embed_tokens.weight"]
        self.eps = np.float32(config["rms_norm_eps"])
        self._layers = []
        for index in range(config["num_hidden_layers"]):
            own = with_prefix(weights, f"layers.{index}.")
            qkv = np.concatenate([own[f"self_attn.{part}_proj.weight"] for part in "qkv"])
            gate_up = np.concatenate([own[f"mlp.{part}_proj.weight"] for part in ("gate", "up")])
            self._layers.append((own, qkv, gate_up))

    def cache(self, length: int) -> Floats:
        """Allocate the KV cache of one sequence: shape (layers, 2, 1, key heads, length, head size)."""
        shape = (len(self._layers), 2, 1, self.config["num_key_value_heads"], length, self.config["head_dim"])
        return np.empty(shape, dtype=np.float32)

    def __call__(
        self, hidden: Floats, positions: NDArray[np.int64], cache: Floats, start: int, levels: list[tuple[Any, Floats]]
    ) -> Floats:
        """Read `n` more tokens of each of `b` sequences; see `read`.

        Returns:
            Scores of the token after the last one, shape (b, vocabulary).
        """
        return self.scores(self.read(hidden, positions, cache, start, levels)[:, -1])

    def scores(self, hidden: Floats) -> Floats:
        """Scores of the token after each, of hidden states as `read` returns them, shape (..., hidden)."""
        return linear(self._norm(self.weights["norm.weight"], hidden), self.head)

    def read(
        self, hidden: Floats, positions: NDArray[np.int64], cache: Floats, start: int, levels: list[tuple[Any, Floats]]
    ) -> Floats:
        """Read `n` more tokens of each of `b` sequences.

        Args:
            hidden: Embeddings, shape (b, n, hidden).
            positions: Time, height and width of each, shape (3, n), the same for all sequences.
            cache: From `cache` or `take_rows`; the new keys and values are written to it.
            start: Tokens already read.
            levels: For each of the first layers, which tokens to add visual features to, and the features.

        Returns:
            Hidden states of the last layer, shape (b, n, hidden).
        """
        rotary = self._rotation(positions)
        for index, (own, qkv, gate_up) in enumerate(self._layers):
            inner = self._norm(own["input_layernorm.weight"], hidden)
            hidden = hidden + self._attention(own, qkv, inner, rotary, cache[index], start)
            inner = linear(self._norm(own["post_attention_layernorm.weight"], hidden), gate_up)
            gate, up = np.split(inner, 2, axis=-1)
            hidden = hidden + linear(gate / (1 + np.exp(-gate)) * up, own["mlp.down_proj.weight"])
            if index < len(levels):
                rows, features = levels[index]
                hidden[:, rows] += features
        return hidden

    def _attention(
        self, own: Weights, qkv: Floats, x: Floats, rotary: tuple[Floats, Floats], cache: Floats, start: int
    ) -> Floats:
        size, heads = self.config["head_dim"], self.config["num_attention_heads"]
        kept = self.config["num_key_value_heads"]
        count, new = x.shape[:2]
        end = start + new
        mixed = linear(x, qkv).reshape(count, new, -1, size).transpose(0, 2, 1, 3)
        queries, keys, values = mixed[:, :heads], mixed[:, heads : heads + kept], mixed[:, heads + kept :]
        cache[0, :, :, start:end] = rotate(self._norm(own["self_attn.k_norm.weight"], keys), rotary)
        cache[1, :, :, start:end] = values
        queries = rotate(self._norm(own["self_attn.q_norm.weight"], queries), rotary)
        # Query heads share key heads in groups; a group's queries stand one below the other, so that nothing is copied.
        group = heads // kept
        grouped = queries.reshape(count, kept, group * new, size)
        mask = None
        if new > 1:
            causal = np.arange(end) > start + np.arange(new)[:, None]
            mask = np.tile(causal, (group, 1))
        seen = scaled_dot_product_attention(grouped, cache[0, :, :, :end], cache[1, :, :, :end], mask)
        seen = seen.reshape(count, heads, new, size).transpose(0, 2, 1, 3).reshape(count, new, -1)
        return linear(seen, own["self_attn.o_proj.weight"])

    def _norm(self, weight: Floats, x: Floats) -> Floats:
        # What `mean` does, without its checks, which take as long as the sums of few rows.
        squares = np.add.reduce(np.square(x), axis=-1, keepdims=True) / np.float32(x.shape[-1])
        return np.asarray(weight * (x / np.sqrt(squares + self.eps)))

    def _rotation(self, positions: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Interleaved M-RoPE: frequencies turn with time, height, width, time, height, width, …, the rest with time."""
        size, rope = self.config["head_dim"], self.config["rope_parameters"]
        frequencies = rope["rope_theta"] ** -(np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
        axis = np.zeros(size // 2, dtype=np.int64)
        for turned in (1, 2):
            axis[turned : rope["mrope_section"][turned] * 3 : 3] = turned
        return rotation(positions[axis].T * frequencies)


def linear(x: Floats, weight: Floats) -> Floats:
    """Multiply rows, shape (..., in), by a weight, shape (out, in)."""
    rows = x.reshape(-1, x.shape[-1])
    count = len(rows)
    if count > _FEW_ROWS:
        product = rows @ weight.T
    else:
        if 0 < (beyond := -count % _BLAS_ROWS) < _BLAS_ROWS // 2:
            rows = np.concatenate([rows, np.zeros((beyond, rows.shape[1]), dtype=rows.dtype)])
        # Of few rows the weight is what is read, and BLAS reads it as it lies only where it stands first.
        product = (weight @ rows.T)[:, :count].T
    return np.asarray(product.reshape(*x.shape[:-1], -1))


def take_rows(cache: Floats, rows: Sequence[int], length: int) -> Floats:
    """Copy the sequences `rows` of a KV cache, of which `length` tokens are read; one may be taken several times."""
    if list(rows) == list(range(cache.shape[2])):
        return cache
    copy = np.empty((*cache.shape[:2], len(rows), *cache.shape[3:]), dtype=cache.dtype)
    copy[..., :length, :] = cache[:, :, rows, :, :length]
    return copy


def rotation(angles: NDArray[Any]) -> tuple[Floats, Floats]:
    """Cosines and sines of angles, shape (n, half), for both halves of a head, shape (n, 2 * half)."""
    both = np.concatenate([angles, angles], axis=1).astype(np.float32)
    return np.cos(both), np.sin(both)


def rotate(x: Floats, rotary: tuple[Floats, Floats]) -> Floats:
    """Turn heads by rotary position embeddings, shape (..., heads, n, size)."""
    half = x.shape[-1] // 2
    return np.asarray(x * rotary[0] + np.concatenate([-x[..., half:], x[..., :half]], axis=-1) * rotary[1])


def attention(queries: Floats, keys: Floats, values: Floats) -> Floats:
    """Attention of everything to everything: heads first in, shape (n, heads * size) out."""
    seen = scaled_dot_product_attention(queries, keys, values, None)
    return seen.transpose(1, 0, 2).reshape(seen.shape[1], -1)


def scaled_dot_product_attention(
    queries: Floats, keys: Floats, values: Floats, mask: NDArray[np.bool_] | None
) -> Floats:
    """Scaled dot-product attention, heads first; `mask` marks keys that a query may not see."""
    scores = (queries * np.float32(queries.shape[-1] ** -0.5)) @ keys.swapaxes(-1, -2)
    if mask is not None:
        scores[..., mask] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    return np.asarray((scores @ values) / scores.sum(axis=-1, keepdims=True))


def gelu_tanh(x: Floats) -> Floats:
    """GELU by its tanh approximation (Hendrycks and Gimpel, 2016, arXiv 1606.08415); tanh as a logistic function."""
    u = x + np.float32(0.044715) * x * x * x
    return np.asarray(x / (1 + np.exp(np.float32(-2 * math.sqrt(2 / math.pi)) * u)))


def gelu(x: Floats) -> Floats:
    """GELU by the error function: Abramowitz and Stegun 7.1.26, whose error of 1.5e-7 is that of float32."""
    z = np.abs(x) * np.float32(math.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    tail = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = t * (tail + np.float32(factor))
    erf = np.copysign(1 - tail * np.exp(-z * z), x)
    return np.asarray(0.5 * x * (1 + erf))
