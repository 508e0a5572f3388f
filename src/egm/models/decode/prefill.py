"""Prompts read at once (prefill): pictures by the tower, then all tokens by the language model, up to the first logits.

One question about one picture is so little work that a GPU waits for the host, which launches a thousand kernels one by
one. So both parts are recorded as CUDA graphs: the tower by the pictures' grids, the language model by how many tokens
it reads, which are padded to few numbers. Neither depends on what is in the picture or in the text. Where there is more
to read the GPU is busy anyway, and nothing is recorded.

Questions about one picture begin alike, up to the picture's end. That prefix is read once for all of them, and where
prefixes are kept, once for all calls that come soon enough.

In shapes, U is the prompts, T the length that rows are padded to on the right, L the visual tokens in them, and V the
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import torch

from egm.models.decode.cache import PrefixedKVCache, StaticKVCache, additive_mask
from egm.models.decode.fused import FusedModel
from egm.models.decode.graphs import Clock, RecordedCalls, Tensors
from egm.models.decode.layout import PAD_MULTIPLE, PromptLayout, TokenRows, lay_out, padded, token_rows
from egm.models.decode.prefixes import Prefix, PrefixCache
from egm.models.decode.prompt_batch import PromptBatch
from egm.models.fast.core import VISUAL
from egm.models.fast.tower import plan_of
from egm.models.find_core import core_of

_MOST_PATCHES: Final = (
    8192  # of pictures that are looked at together: the tower of more is busy, however it is launched
)
_MOST_TOKENS: Final = 2048  # of prompts that are read together, likewise
_TOWERS: Final = 32  # recordings of the tower that are kept, a grid each
_READINGS: Final = 8
_KEPT: Final = 4  # prompts of a call whose prefixes are kept: many are a run over pictures, which come once
_SUFFIX_MULTIPLE: Final = 32  # tokens that what follows a prefix is padded to a multiple of

_Group: TypeAlias = tuple[int, tuple[int, ...]]  # a picture, and the tokens up to its end


@dataclass(frozen=True, slots=True)
class ReadPrompts:
    """What is known of prompts once they are read.

    Attributes:
        cache: Keys and values; where each prompt's stand is said by `prefix` and `gap`.
        scores: Logits of the tokens that come next, shape (U, V).
        lengths: How many tokens each prompt has, shape (U,).
        start: The positions that come next, shape (U,).
        prefix: How many tokens of each prompt stand in the cache's first columns, shape (U,).
        gap: How many columns lie between these and the prompt's other tokens, shape (U,).
        padded: What all prompts are to be padded to.
    """

    cache: StaticKVCache
    scores: torch.Tensor
    lengths: torch.Tensor
    start: torch.Tensor
    prefix: torch.Tensor
    gap: torch.Tensor
    padded: int


class _Behind(NamedTuple):
    """What rows are read behind: prefixes of all layers, shape (prefixes, key heads, T, head width)."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]


class PromptReader:
    """Reads prompts with a Qwen3-VL model that has the fast path on.

    Args:
        device: Where the model is.
        pad: The padding token.
        graphs: Whether to record what is launched, on a GPU.
        prefix_bytes: How many bytes of prefixes are kept for further calls.

    Attributes:
        towers: The calls of the tower.
        readings: The calls of the language model.
        prefixes: What is kept.
        said: The last answer about the picture of the prompt that was read last and alone, if that is known; whoever
            writes the next one puts it here, in place.
    """

    def __init__(self, device: torch.device, pad: int, *, graphs: bool, prefix_bytes: int = 0) -> None:
        self._device, self._pad = device, pad
        self.towers = RecordedCalls(device, _TOWERS if graphs else 0, "the vision tower goes on")
        self.readings = RecordedCalls(device, _READINGS if graphs else 0, "the reading of prompts goes on")
        self.prefixes = PrefixCache(prefix_bytes)
        self._parameters: list[Any] = []
        self._fused: FusedModel | None = None  # what the read under way computes with, and what it stops
        self._clock: Clock | None = None
        self._to_keep: list[tuple[Any, tuple[int, ...], _Behind, int]] = []
        self.said: list[int] = []

    def release(self) -> None:
        """Give back the memory of graphs and prefixes, which are of the weights where they were."""
        self.towers.clear()
        self.readings.clear()
        self.prefixes.clear()
        self._parameters = []

    def read(
        self, policy: Any, prompts: PromptBatch, clock: Clock | None = None, fused: FusedModel | None = None
    ) -> ReadPrompts:
        """Read prompts.

        Args:
            policy: The model, under `grouped_attention`.
            prompts: What to read.
            clock: What stands still while graphs are recorded.
            fused: What computes the language model's layers in place of the library's.

        Returns:
            What came of it; the next call of the reader may overwrite it. Before that, `keep_prefixes` is to be called.
        """
        self._fused, self._clock = fused, clock
        layout, count = lay_out(prompts, self._pad, core_of(policy).config), len(prompts.ids)
        beginnings = zip(layout.pictures, prompts.ids, layout.prefixes, strict=True)
        begun = [(picture, tuple(ids[:length])) for picture, ids, length in beginnings]
        groups: dict[_Group, int] = {}  # with the first row that begins so
        for row, head in enumerate(begun):
            groups.setdefault(head, row)
        found, self._to_keep = self._find(policy, prompts, groups), []
        self.said = next(iter(found.values())).said if found and count == 1 else []
        prefix = np.zeros(count, dtype=np.int64)
        behind, gap, index, unit = None, prefix, prefix, PAD_MULTIPLE
        if (found or len(groups) < count) and bool((layout.prefixes < layout.lengths).all()):
            behind = self._read_prefixes(policy, prompts, layout, groups, found)
            prefix, unit = layout.prefixes, _SUFFIX_MULTIPLE
            gap, numbers = behind.keys[0].shape[2] - prefix, {group: number for number, group in enumerate(groups)}
            index = np.array([numbers[head] for head in begun])
        spans = list(zip(prefix.tolist(), layout.lengths.tolist(), strict=True))
        more = np.concatenate([prefix, index, layout.lengths, layout.start, gap])
        scores, cache, rest = self._read(policy, prompts, token_rows(layout, range(count), spans, unit, more), behind)
        if behind is None:
            self._mark(prompts, groups, cache)
        first, _, lengths, start, gaps = rest.view(5, count).unbind()
        return ReadPrompts(cache, scores, lengths, start, first, gaps, padded(int(layout.lengths.max())))

    def keep_prefixes(self) -> None:
        """Keep the prefixes of what was read last, as long as that is there; the host waits for nothing."""
        for source, ids, tensors, row in self._to_keep:
            layers, (_, heads, _, size) = len(tensors.keys), tensors.keys[0].shape
            if 2 * layers * heads * padded(len(ids)) * size * tensors.keys[0].element_size() > self.prefixes.most:
                continue
            kept = tensors.keys[0].new_zeros((2 * layers, heads, padded(len(ids)), size))
            # All layers at once: a launch for each would take longer than the step after it.
            kept[:, :, : len(ids)] = torch.stack([tensor[row, :, : len(ids)] for side in tensors for tensor in side])
            keys, values = kept[:layers].unbind(), kept[layers:].unbind()
            said = self.said if len(self._to_keep) == 1 else []
            self.prefixes.keep(source, ids, Prefix(list(keys), list(values), len(ids), said))
        self._to_keep = []

    def _find(self, policy: Any, prompts: PromptBatch, groups: dict[_Group, int]) -> dict[_Group, Prefix]:
        """Return what is kept of prompts' beginnings."""
        if not (self.prefixes.most and prompts.sources):
            return {}
        self._parameters = self._parameters or list(policy.parameters())
        self.prefixes.see_weights(sum(0 if each.is_inference() else each._version for each in self._parameters))
        looked = {group: self.prefixes.find(prompts.sources[group[0]], group[1]) for group in groups}
        return {group: prefix for group, prefix in looked.items() if prefix is not None}

    def _mark(self, prompts: PromptBatch, groups: dict[_Group, int], cache: StaticKVCache) -> None:
        """Note what of a cache is to be kept, where that is worth it."""
        if self.prefixes.most and prompts.sources and len(prompts.ids) <= _KEPT:
            tensors = _Behind(list(cache.keys), list(cache.values))  # the cache itself is taken apart
            self._to_keep += [(prompts.sources[picture], ids, tensors, row) for (picture, ids), row in groups.items()]

    def _read_prefixes(
        self,
        policy: Any,
        prompts: PromptBatch,
        layout: PromptLayout,
        groups: dict[_Group, int],
        found: dict[_Group, Prefix],
    ) -> _Behind:
        """Return the prefixes of all groups, in order: those found, and those that are read now."""
        missing = {group: row for group, row in groups.items() if group not in found}
        new = _Behind([], [])
        if missing:
            spans = [(0, len(ids)) for _, ids in missing]
            part = token_rows(layout, list(missing.values()), spans, PAD_MULTIPLE, np.zeros(0, dtype=np.int64))
            _, cache, _ = self._read(policy, prompts, part, None)
            new = _Behind(cache.keys, cache.values)
            self._mark(prompts, {group: place for place, group in enumerate(missing)}, cache)
            self.keep_prefixes()  # now, since what is read next may overwrite them
        if not found:
            return new
        places, rows = {group: place for place, group in enumerate(missing)}, []
        for group in groups:
            kept = found.get(group)
            rows.append(_Behind(kept.keys, kept.values) if kept else _row_of(new, places[group]))
        if len(rows) == 1:
            return _Behind(*([tensor[None] for tensor in side] for side in rows[0]))
        width, layers = max(row.keys[0].shape[1] for row in rows), range(len(rows[0].keys))
        return _Behind(
            *(
                [torch.stack([_padded_row(row[side][layer], width) for row in rows]) for layer in layers]
                for side in (0, 1)
            )
        )

    def _read(
        self, policy: Any, prompts: PromptBatch, part: TokenRows, behind: _Behind | None
    ) -> tuple[torch.Tensor, StaticKVCache, torch.Tensor]:
        """Read rows of tokens: logits (U, V), keys and values, and the further numbers of `part` on the device."""
        core = core_of(policy)
        # All that comes from the host is sent before anything is launched that it would wait for.
        sent = torch.from_numpy(part.numbers).to(self._device, non_blocking=True)
        ids, positions, last, where, which, more = part.split(sent)
        embedded = core.get_input_embeddings()(ids)  # (U * T, width)
        levels: Sequence[torch.Tensor] = ()
        if part.pictures:
            pixels = prompts.pixels_of(part.pictures).to(self._device, core.visual.dtype)
            grids = [prompts.grids[picture] for picture in part.pictures]
            seen = self._look(core, pixels, grids)  # (L, width) each
            features, *levels = seen if part.in_order else [level[which] for level in seen]
            embedded = embedded.index_copy(0, where, features.to(embedded.dtype))
        inputs = [embedded, positions, last]
        if behind is not None:
            prefix, index = more[: part.shape[0]], more[part.shape[0] : 2 * part.shape[0]]
            visible = _seen_behind(prefix, behind.keys[0].shape[2], part.shape[1])
            inputs += [additive_mask(visible, embedded.dtype), index, *behind.keys, *behind.values]
        scores, *tensors = self._read_tokens(policy, inputs, where, levels)
        cache = StaticKVCache()
        cache.keys, cache.values = tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
        return scores, cache, more

    def _look(self, core: Any, pixels: torch.Tensor, grids: Sequence[Any]) -> Tensors:
        """Run the tower: features of the pictures, then those of each level of DeepStack, of shape (tokens, width)."""

        def look(pixels: torch.Tensor) -> Tensors:
            seen = core.visual(pixels, grid_thw=torch.tensor(grids), return_dict=True)  # read on the CPU
            return seen.pooler_output, *seen.deepstack_features

        # Pictures of several sizes come together once, and are sorted by numbers of the host.
        if len(pixels) > _MOST_PATCHES or len(set(grids)) > 1:
            return look(pixels)
        key = tuple(grids)
        return self.towers(key, look, [pixels], held=lambda: plan_of(core.visual, key), clock=self._clock)

    def _read_tokens(
        self,
        policy: Any,
        inputs: Sequence[torch.Tensor],
        where: torch.Tensor,
        levels: Sequence[torch.Tensor],
    ) -> Tensors:
        """Run the language model: logits (U, V), then the keys of all layers, then their values.

        Args:
            policy: The model.
            inputs: Embeddings (U * T, width), positions (3, U, T), the place of each row's last token among all (U,);
                and where rows are read behind prefixes, the mask, each row's prefix (U,), and keys and values of these.
            where: The places of visual tokens, shape (L,).
            levels: What DeepStack adds to the first layers at these places, each of shape (L, width).
        """
        core, shape, fused = core_of(policy), inputs[1].shape[1:], self._fused

        def read(*given: torch.Tensor, where: torch.Tensor | None, levels: Sequence[torch.Tensor]) -> Tensors:
            embedded, positions, last, *behind = given
            cache, mask = StaticKVCache(), None
            if behind:
                mask, index, *tensors = behind
                half = len(tensors) // 2
                cache = PrefixedKVCache(tensors[:half], tensors[half:], index)
            if fused is not None:
                scores = fused.read(embedded, positions, last, cache, mask=mask, where=where, levels=levels)
                return scores, *cache.keys, *cache.values
            if where is None:
                levels = [level.view(*shape, -1) for level in levels]
            visual = {VISUAL: (where, list(levels))} if levels else {}
            output = core.language_model(
                inputs_embeds=embedded.view(*shape, -1),
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                **visual,
            )
            hidden = output.last_hidden_state.flatten(0, 1).index_select(0, last)
            return policy.get_output_embeddings()(hidden), *cache.keys, *cache.values

        if shape.numel() > _MOST_TOKENS:
            return read(*inputs, where=where, levels=levels)
        # With a feature for every token, 0 for text: so a recording does not depend on how many are visual.
        dense = [torch.zeros_like(inputs[0]).index_copy_(0, where, level.to(inputs[0].dtype)) for level in levels]
        count = len(dense)
        key = (tuple(shape), count, tuple(inputs[5].shape) if len(inputs) > 3 else None)
        return self.readings(
            key,
            lambda *given: read(*given[count:], where=None, levels=given[:count]),
            [*dense, *inputs],
            clock=self._clock,
        )


def _seen_behind(prefix: torch.Tensor, width: int, length: int) -> torch.Tensor:
    """Return what each token of a row may look at, shape (U, 1, length, width + length).

    Args:
        prefix: How many tokens the prefix of each row has, shape (U,).
        width: What prefixes are padded to.
        length: What rows are padded to.
    """
    columns, tokens = (torch.arange(count, device=prefix.device) for count in (width + length, length))
    before = (columns < width) & (columns < prefix[:, None])  # (U, width + length)
    own = (columns >= width) & (columns - width <= tokens[:, None])  # (length, width + length)
    return before[:, None, None] | own


def _padded_row(tensor: torch.Tensor, width: int) -> torch.Tensor:
    """Return a copy of keys or values (heads, tokens, head width), padded on the right to so many tokens."""
    heads, tokens, size = tensor.shape
    row = tensor.new_zeros((heads, width, size))
    row[:, :tokens] = tensor
    return row


def _row_of(tensors: _Behind, row: int) -> _Behind:
    return _Behind(*([tensor[row] for tensor in side] for side in tensors))
