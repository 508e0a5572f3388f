"""From Samples to tensors, in the data loader's workers: few bytes a picture, nothing rebuilt that can be kept.

A picture travels as uint8 patches, an eighth of the processor's float32 ones, which `expand_pixels` makes on the
device. Sequences are padded on the right and no attention mask is sent: under causal attention no token sees what comes
after it, so the padding cannot be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from egm.codecs import Codec
from egm.codecs.resize import smart_resize
from egm.errors import DataError, ModelError
from egm.images import load_image
from egm.training.data.pictures import load_pictures
from egm.training.data.rows import Rows
from egm.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

IGNORED = -100
_UNIT = 32  # lengths are padded to its multiples: few shapes to compile for, all of them aligned


class Collator:
    """Makes a batch from numbers of rows.

    Args:
        rows: Where the samples are.
        processor: The model's processor, a Qwen-VL one.
        codec: The model's convention.
        config: The model's configuration.
        thinking: Whether targets hold the rationale.
        prompt: Prompt style; None takes the codec's own.
        max_length: Longest sequence in tokens.
        host_grids: Give grids as a list, as the fast path takes them; else as the tensor that the stock model needs.
        masks: Give the attention mask too: a mixture of experts leaves padding out of the balance of its load by it.

    Raises:
        ModelError: If the processor is not of the Qwen-VL family.
    """

    def __init__(
        self,
        rows: Rows,
        processor: Any,
        codec: Codec,
        config: Any,
        *,
        thinking: bool = True,
        prompt: str | None = None,
        max_length: int = 1024,
        host_grids: bool = True,
        masks: bool = False,
    ) -> None:
        self.rows, self.processor, self.codec, self.config = rows, processor, codec, config
        self.thinking, self.prompt, self.max_length = thinking, prompt, max_length
        self.host_grids, self.masks = host_grids, masks
        self.tokenizer, self.images = processor.tokenizer, processor.image_processor
        for name in ("patch_size", "merge_size", "temporal_patch_size"):
            if not isinstance(getattr(self.images, name, None), int):
                raise ModelError(f"{type(processor).__name__} has no {name}: training reads Qwen-VL processors only")
        self.image_token: str = processor.image_token
        self.pad_id: int = self.tokenizer.pad_token_id
        self.end: str = self.tokenizer.eos_token

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Make the batch of some rows, given as `{"row": number}`.

        Returns:
            `input_ids` and `labels` (B, T), `position_ids` (3, B, T), `image_grid_thw`, a list of B grids that stays on
            the host or a tensor (B, 3), `pixels`, uint8 (patches, 3 * patch * patch), in the order of the samples,
            `samples`, their ids, and with `masks` `attention_mask` (B, T).
        """
        return self.collate([sample for feature in features for sample in self.rows[feature["row"]]])

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Make the batch of some samples, see `__call__`."""
        import torch

        from egm.models.fast.rope_index import position_ids

        images, numbers = load_pictures(samples)
        patches = [self._patches(image) for image in images]
        # Patches of each sample's picture (rows * columns, 3 * patch * patch), the same array for those that share one.
        pixels, grids = zip(*(patches[number] for number in numbers), strict=True)
        prompts = [self._prompt(sample, grid) for sample, grid in zip(samples, grids, strict=True)]
        targets = [self._target(sample, grid) + self.end for sample, grid in zip(samples, grids, strict=True)]
        encoded = self.tokenizer([*prompts, *targets], add_special_tokens=False)["input_ids"]
        count = len(samples)
        longest = max(len(a) + len(b) for a, b in zip(encoded[:count], encoded[count:], strict=True))
        longest = -(-longest // _UNIT) * _UNIT
        ids = np.full((count, longest), self.pad_id, dtype=np.int64)  # (B, T), padded on the right
        labels = np.full((count, longest), IGNORED, dtype=np.int64)
        lengths = []
        for i, (prompt, target) in enumerate(zip(encoded[:count], encoded[count:], strict=True)):
            length = len(prompt) + len(target)
            if length > self.max_length:
                raise DataError(
                    f"sample {samples[i].id} takes {length} tokens, over data.max_length {self.max_length}: "
                    "raise it, shorten the rationale, or lower the image size"
                )
            ids[i, : len(prompt)] = prompt
            ids[i, len(prompt) : length] = target
            labels[i, len(prompt) : length] = target  # the loss is over the target alone
            lengths.append(length)
        input_ids = torch.from_numpy(ids)
        mask = torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]
        return {
            "input_ids": input_ids,
            "labels": torch.from_numpy(labels),
            "position_ids": position_ids(input_ids, grids, mask, self.config),
            "image_grid_thw": list(grids) if self.host_grids else torch.tensor(grids),
            "pixels": torch.from_numpy(np.concatenate(pixels)),
            "samples": [sample.id for sample in samples],
            **({"attention_mask": mask.long()} if self.masks else {}),
        }

    def length(self, sample: Sample) -> int:
        """Return how many tokens a sample takes; for one that is sure to fit, a bound that is cheap to tell.

        Raises:
            DataError: If it has no box, or no rationale where one is needed.
        """
        size = sample.size or load_image(sample.image).size
        grid = (1, *self._grid(size))
        text = self._prompt(sample, grid) + self._target(sample, grid) + self.end
        images = text.count(self.image_token)
        bound = len(text.encode()) - images * (len(self.image_token) - 1)  # a token takes a byte at least
        return bound if bound <= self.max_length else len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _patches(self, image: Image) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
        """Cut a picture into uint8 patches in the processor's order, resized as the processor resizes."""
        patch, merge = self.images.patch_size, self.images.merge_size
        rows, columns = self._grid(image.size)
        if (columns * patch, rows * patch) == image.size:
            return patchify(np.asarray(image), patch, merge), (1, rows, columns)
        raw = self.images(images=[image], do_rescale=False, do_normalize=False, return_tensors="np")
        flat = np.asarray(raw["pixel_values"]).reshape(rows * columns, 3, self.images.temporal_patch_size, -1)[:, :, 0]
        # Bicubic resizing is done on uint8, so the processor's values are whole numbers already.
        return np.ascontiguousarray(flat.reshape(rows * columns, -1).astype(np.uint8)), (1, rows, columns)

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        return _grid_of(self.images, size)

    def _prompt(self, sample: Sample, grid: tuple[int, int, int]) -> str:
        messages = self.codec.messages(sample.phrase, amodal=sample.amodal, prompt=self.prompt)
        before, after = self._template(sample.amodal)
        question = next(part["text"] for part in messages[0]["content"] if part["type"] == "text")
        tokens = grid[1] * grid[2] // self.images.merge_size**2
        text: str = before.replace(self.image_token, self.image_token * tokens) + question + after
        return text

    @lru_cache(maxsize=2)  # noqa: B019 - two entries, and the collator lives as long as the run
    def _template(self, amodal: bool) -> tuple[str, str]:
        """Render the chat template once: what stands before the question, and after it."""
        messages = self.codec.messages("phrase", amodal=amodal, prompt=self.prompt)
        question = next(part["text"] for part in messages[0]["content"] if part["type"] == "text")
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        before, found, after = text.partition(question)
        if not found or before.count(self.image_token) != 1:
            raise ModelError("the chat template does not put one image before the question: use a Qwen-VL checkpoint")
        if self.thinking and after.rstrip().endswith("</think>"):  # a second reasoning would be taught behind it
            raise ModelError(
                "the chat template ends the reasoning before the answer begins: set data.thinking to false, or give "
                "the checkpoint a template that opens <think>"
            )
        return before, after

    def _target(self, sample: Sample, grid: tuple[int, int, int]) -> str:
        if sample.box is None:
            raise DataError(f"sample {sample.id} has no box: training needs one in every row")
        if self.thinking and not sample.rationale:
            raise DataError(f"sample {sample.id} has no rationale: add one, or set data.thinking to false")
        size = sample.size or load_image(sample.image).size
        rationale = sample.rationale if self.thinking else None
        seen_size = (grid[2] * self.images.patch_size, grid[1] * self.images.patch_size)
        return self.codec.target(sample.phrase, sample.box, size=size, rationale=rationale, seen_size=seen_size)


@lru_cache(maxsize=4096)
def _grid_of(images: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of patches after the processor's resizing."""
    limits = images.size
    columns, rows = smart_resize(
        size,
        factor=images.patch_size * images.merge_size,
        min_pixels=limits["shortest_edge"],
        max_pixels=limits["longest_edge"],
    )
    return rows // images.patch_size, columns // images.patch_size


def patchify(pixels: NDArray[np.uint8], patch: int, merge: int) -> NDArray[np.uint8]:
    """Cut a picture into patches in Qwen-VL's order: blocks of `merge` x `merge` patches, row by row.

    Args:
        pixels: RGB, shape (height, width, 3); both sides multiples of `patch * merge`.
        patch: Side of a patch in pixels.
        merge: Side of a block in patches.

    Returns:
        Shape (patches, 3 * patch * patch), channel first within a patch.
    """
    height, width, channels = pixels.shape
    blocks = pixels.reshape(height // (patch * merge), merge, patch, width // (patch * merge), merge, patch, channels)
    return np.ascontiguousarray(blocks.transpose(0, 3, 1, 4, 6, 2, 5)).reshape(-1, channels * patch * patch)


def expand_pixels(pixels: Any, *, mean: Sequence[float], std: Sequence[float], temporal: int) -> Any:
    """Make the processor's `pixel_values` from uint8 patches, on whatever device they are.

    Args:
        pixels: uint8, shape (patches, channels * patch * patch).
        mean: Normalisation mean of each channel, on the scale 0-1.
        std: Normalisation deviation, likewise.
        temporal: Frames a patch spans; a still is repeated.

    Returns:
        float32, shape (patches, channels * temporal * patch * patch).
    """
    count, channels = pixels.shape[0], len(mean)
    values = pixels.float().view(count, channels, 1, -1)  # a copy
    # By numbers of the host, a channel at a time: a tensor of them would have to be sent to the device.
    for channel, (centre, width) in enumerate(zip(mean, std, strict=True)):
        values[:, channel].sub_(centre * 255).div_(width * 255)
    return values.expand(-1, -1, temporal, -1).reshape(count, -1)
