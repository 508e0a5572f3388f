"""Prompts read at once (prefill): pictures by the tower, then all tokens by the language model, up to the first logits.

One question about one picture is so little work that a GPU waits for the host, which launches a thousand kernels one by
one. So both parts are recorded as CUDA graphs: the tower by the pictures' grids, the language model by how many tokens
it reads, which are padded to few numbers. Neither depends on what is in the picture or in the text. Where there is more
to read the GPU is busy anyway, and nothing is recorded.

In shapes, U is the prompts, P the length that they are padded to on the right, where causal attention never looks, L
the visual tokens in them, and V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from egm.models.decode.cache import StaticKVCache
from egm.models.decode.graphs import Clock, RecordedCalls, Tensors
from egm.models.decode.prompt_batch import PromptBatch
from egm.models.fast.core import VISUAL
from egm.models.fast.rope_index import position_ids
from egm.models.fast.tower import plan_of
from egm.models.find_core import core_of

PAD_MULTIPLE: Final = 64
"""Prompts are padded to a multiple of so many tokens."""

_MOST_PATCHES: Final = (
    8192  # of pictures that are looked at together: the tower of more is busy, however it is launched
)
_MOST_TOKENS: Final = 2048  # of prompts that are read together, likewise
_TOWERS: Final = 32  # recordings of the tower that are kept, a grid each
_READINGS: Final = 8


@dataclass(frozen=True, slots=True)
class ReadPrompts:
    """What is known of prompts once they are read.

    Attributes:
        cache: Keys and values, padded on the right to P tokens.
        scores: Logits of the tokens that come next, shape (U, V).
        lengths: How many tokens each prompt has, shape (U,).
        start: The positions that come next, shape (U,).
    """

    cache: StaticKVCache
    scores: torch.Tensor
    lengths: torch.Tensor
    start: torch.Tensor


class PromptReader:
    """Reads prompts with a Qwen3-VL model that has the fast path on.

    Args:
        device: Where the model is.
        pad: The padding token.
        graphs: Whether to record what is launched, on a GPU.

    Attributes:
        towers: The calls of the tower.
        readings: The calls of the language model.
    """

    def __init__(self, device: torch.device, pad: int, *, graphs: bool) -> None:
        self._device, self._pad = device, pad
        self.towers = RecordedCalls(device, _TOWERS if graphs else 0, "the vision tower goes on")
        self.readings = RecordedCalls(device, _READINGS if graphs else 0, "the reading of prompts goes on")

    def release_graphs(self) -> None:
        """Give back the memory that is kept for graphs."""
        self.towers.clear()
        self.readings.clear()

    def read(self, policy: Any, prompts: PromptBatch, clock: Clock | None = None) -> ReadPrompts:
        """Read prompts.

        Args:
            policy: The model, under `grouped_attention`.
            prompts: What to read.
            clock: What stands still while graphs are recorded.

        Returns:
            What came of it; the next call of the reader may overwrite it.
        """
        core, layout = core_of(policy), _lay_out(prompts, self._pad, core_of(policy).config)
        # All that comes from the host is sent before anything is launched that it would wait for.
        sent = torch.from_numpy(layout.numbers).to(self._device, non_blocking=True)
        pixels = prompts.pixels.to(self._device, core.visual.dtype)
        ids, positions, last, lengths, start, where, shown = layout.split(sent)
        features = self._look(core, pixels, prompts.grids, clock)  # (L, width) each
        if layout.shared:
            features = tuple(level[shown] for level in features)
        embeddings = core.get_input_embeddings()(ids)  # (U * P, width)
        embeddings = embeddings.index_copy(0, where, features[0].to(embeddings.dtype))
        scores, *tensors = self._read(policy, embeddings, positions, last, where, features[1:], clock)
        cache = StaticKVCache()
        cache.keys, cache.values = tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
        return ReadPrompts(cache, scores, lengths, start)

    def _look(self, core: Any, pixels: torch.Tensor, grids: Sequence[Any], clock: Clock | None) -> Tensors:
        """Run the tower: features of the pictures, then those of each level of DeepStack, of shape (tokens, width)."""

        def look(pixels: torch.Tensor) -> Tensors:
            seen = core.visual(pixels, grid_thw=torch.tensor(grids), return_dict=True)  # read on the CPU
            return seen.pooler_output, *seen.deepstack_features

        # Pictures of several sizes come together once, and are sorted by numbers of the host.
        if len(pixels) > _MOST_PATCHES or len(set(grids)) > 1:
            return look(pixels)
        key = tuple(grids)
        return self.towers(key, look, [pixels], held=lambda: plan_of(core.visual, key), clock=clock)

    def _read(
        self,
        policy: Any,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        last: torch.Tensor,
        where: torch.Tensor,
        levels: Tensors,
        clock: Clock | None,
    ) -> Tensors:
        """Run the language model: logits (U, V), then the keys of all layers, then their values.

        Args:
            policy: The model.
            embeddings: Shape (U * P, width), visual features in their places.
            positions: Shape (3, U, P).
            last: The place of each prompt's last token among all tokens, shape (U,).
            where: The places of visual tokens, shape (L,).
            levels: What DeepStack adds to the first layers at these places, each of shape (L, width).
            clock: See `read`.
        """
        core, shape = core_of(policy), positions.shape[1:]

        def read(
            embeddings: torch.Tensor,
            positions: torch.Tensor,
            last: torch.Tensor,
            *levels: torch.Tensor,
            where: torch.Tensor | None = None,
        ) -> Tensors:
            cache = StaticKVCache()
            output = core.language_model(
                inputs_embeds=embeddings.view(*shape, -1),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                **{VISUAL: (where, list(levels))},
            )
            hidden = output.last_hidden_state.flatten(0, 1).index_select(0, last)
            return policy.get_output_embeddings()(hidden), *cache.keys, *cache.values

        if len(embeddings) > _MOST_TOKENS:
            return read(embeddings, positions, last, *levels, where=where)
        # With a feature for every token, 0 for text: so a recording does not depend on how many are visual.
        dense = [torch.zeros_like(embeddings).index_copy_(0, where, level.to(embeddings.dtype)) for level in levels]
        dense = [level.view(*shape, -1) for level in dense]
        return self.readings(tuple(shape), read, [embeddings, positions, last, *dense], clock=clock)


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the host knows of prompts, all in one array, so that it is sent at once.

    Attributes:
        numbers: All of them.
        prompts: How many there are (U).
        length: What they are padded to (P).
        visual: How many visual tokens they show (L).
        shared: Whether these are other than the pictures' own, one after the other.
    """

    numbers: NDArray[np.int64]
    prompts: int
    length: int
    visual: int
    shared: bool

    def split(self, sent: torch.Tensor) -> Tensors:
        """Return tokens (U * P,), positions (3, U, P), and `last`, `lengths`, `start` (U,), `where`, `shown` (L,)."""
        count, area = self.prompts, self.prompts * self.length
        ids, positions, *rest = torch.split(sent, [area, 3 * area, count, count, count, self.visual, self.visual])
        return ids, positions.view(3, count, self.length), *rest


def _lay_out(prompts: PromptBatch, pad: int, config: Any) -> _Layout:
    """Pad prompts on the right, and say where everything stands."""
    lengths = np.array([len(tokens) for tokens in prompts.ids])
    count, length = len(lengths), -(-int(lengths.max()) // PAD_MULTIPLE) * PAD_MULTIPLE
    table = np.full((count, length), pad, dtype=np.int64)
    for row, tokens in enumerate(prompts.ids):
        table[row, : len(tokens)] = tokens
    seen = np.arange(length) < lengths[:, None]
    grids = [prompts.grids[picture] for picture in prompts.pictures]
    positions = position_ids(table, grids, seen, config).numpy()
    where = np.flatnonzero((table == config.image_token_id) & seen)
    merge = config.vision_config.spatial_merge_size**2
    counts = np.array([t * h * w // merge for t, h, w in prompts.grids])
    begins = np.concatenate([[0], np.cumsum(counts)])
    shown = np.concatenate([np.arange(begins[p], begins[p] + counts[p]) for p in prompts.pictures])
    # Text goes on behind the largest of the three positions (M-RoPE), which an image may push ahead of the length.
    start, last = positions.max(axis=(0, 2)) + 1, np.arange(count) * length + lengths - 1
    parts = (table, positions, last, lengths, start, where, shown)
    numbers = np.concatenate([np.asarray(part, dtype=np.int64).ravel() for part in parts])
    shared = len(shown) != begins[-1] or bool((np.diff(shown) != 1).any())
    return _Layout(numbers, count, length, len(where), shared)
