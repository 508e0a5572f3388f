"""From Samples to tensors, in the data loader's workers: few bytes a picture, nothing rebuilt that can be kept.

A picture travels as uint8, an eighth of the processor's float32 values, which `Family.pixel_values` makes on the
device. Sequences are padded on the right and no attention mask is sent: under causal attention no token sees what comes
after it, so the padding cannot be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from egm.codecs import THINK_CLOSED, THINK_OPENING, Codec
from egm.errors import DataError, ModelError
from egm.images import load_image
from egm.models.families import Grid, trained_family
from egm.training.data.pictures import load_pictures
from egm.training.data.rows import DatasetRows, MixedRows, Rows, SynthRefRows
from egm.training.data.styles import choose_prompt, share_of
from egm.training.recipe import Prompts
from egm.types import Sample

IGNORED = -100
_UNIT = 32  # lengths are padded to its multiples: few shapes to compile for, all of them aligned


class Collator:
    """Makes a batch from numbers of rows.

    Args:
        rows: Where the samples are.
        processor: The model's processor.
        codec: The model's convention.
        config: The model's configuration.
        thinking: Whether targets hold the rationale.
        direct: Share of samples whose reasoning the prompt closes, so that the target is the answer alone.
        cut: Share of samples whose reasoning the prompt cuts off at any of its tokens and closes, likewise.
        prompt: Prompt style, or several of which each sample is asked in one; None takes the codec's own.
        max_length: Longest sequence in tokens.
        fast: Whether the model has its fast path on, which takes grids as a list and not as a tensor.
        masks: Give the attention mask too: a mixture of experts leaves padding out of the balance of its load by it.

    Raises:
        ModelError: If the model is of a family that is not trained.
        EgmError: If the codec has no answer for what a split of SynthRef asks.
    """

    def __init__(
        self,
        rows: Rows,
        processor: Any,
        codec: Codec,
        config: Any,
        *,
        thinking: bool = True,
        direct: float = 0.0,
        cut: float = 0.0,
        prompt: Prompts | None = None,
        max_length: int = 1024,
        fast: bool = True,
        masks: bool = False,
    ) -> None:
        self.rows, self.processor, self.codec, self.config = rows, processor, codec, config
        self.thinking, self.direct, self.cut = thinking, direct, cut
        self.prompt, self.max_length = prompt, max_length
        self.fast, self.masks = fast, masks
        self.tokenizer, self.family = processor.tokenizer, trained_family(config)
        for style in (prompt,) if prompt is None or isinstance(prompt, str) else prompt:
            codec.messages("anything", prompt=style)  # so that an unknown style is refused now
        if direct and not codec.thinking_prefilled:
            raise ModelError(
                "data.direct is for models whose chat template opens <think>, which the prompt can close: leave it out"
            )
        for part in rows.parts if isinstance(rows, MixedRows) else (rows,):
            for expect in part.expects if isinstance(part, SynthRefRows | DatasetRows) else ():
                codec.check_expect(expect)
        self.image_token: str = processor.image_token
        self.pad_id: int = self.tokenizer.pad_token_id
        self.end = self.family.end(processor)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Make the batch of some rows, given as `{"row": number}`.

        Returns:
            `input_ids` and `labels` (B, T), `position_ids` (B, T), or (3, B, T) where the family has three axes,
            `pixels`, uint8, what `Family.see` makes of the pictures in the order of the samples, what else the model
            takes of them (`Family.fields`), `samples`, their ids, and with `masks` `attention_mask` (B, T).
        """
        return self.collate([sample for feature in features for sample in self.rows[feature["row"]]])

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Make the batch of some samples, see `__call__`."""
        import torch

        images, numbers = load_pictures(samples)
        seen = [self.family.see(self.processor, image) for image in images]
        cut = [self.family.grid(self.processor, image.size) for image in images]
        # What is seen of each sample's picture, the same array for those that share one.
        pixels, grids = [seen[number] for number in numbers], [cut[number] for number in numbers]
        texts = [self._texts(sample, grid) for sample, grid in zip(samples, grids, strict=True)]
        prompts, targets = zip(*texts, strict=True)
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
            "position_ids": self.family.positions(input_ids, grids, mask, self.config),
            **self.family.fields(grids, fast=self.fast),
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
        grid = self.family.grid(self.processor, size)
        text = "".join(self._texts(sample, grid))
        images = text.count(self.image_token)
        bound = len(text.encode()) - images * (len(self.image_token) - 1)  # a token takes a byte at least
        return bound if bound <= self.max_length else len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _texts(self, sample: Sample, grid: Grid) -> tuple[str, str]:
        """Write a sample's prompt, and its target up to the end of the turn."""
        drawn = share_of(sample.id, "direct")
        direct, cut = drawn < self.direct, self.direct <= drawn < self.direct + self.cut
        prompt, target = self._prompt(sample, grid), self._target(sample, grid, thinking=self.thinking and not direct)
        if direct or cut:  # what closes the reasoning is given and not learnt: else the model would draw when to end it
            reasoning, _, target = target.partition(THINK_CLOSED)
            prompt += (self._begun(reasoning, sample.id) if cut else "") + THINK_CLOSED
        return prompt, target + self.end

    def _begun(self, reasoning: str, name: str) -> str:
        """Cut reasoning off behind any of its tokens, and end the line, as a thinking budget does."""
        opening = "" if self.codec.thinking_prefilled else THINK_OPENING
        ids = self.tokenizer(reasoning.removeprefix(opening), add_special_tokens=False)["input_ids"]
        kept = ids[: 1 + int(share_of(name, "cut") * (len(ids) - 1))]
        text: str = self.tokenizer.decode(kept, clean_up_tokenization_spaces=False)
        text = text.rstrip("\ufffd")  # half a letter: a token may be a byte
        return opening + text + ("" if text.endswith("\n") else "\n")

    def _prompt(self, sample: Sample, grid: Grid) -> str:
        asked: dict[str, Any] = {} if sample.expect == "one" else {"expect": sample.expect}
        style = choose_prompt(self.prompt, sample.id)
        messages = self.codec.messages(sample.phrase, amodal=sample.amodal, prompt=style, **asked)
        before, after = self._template(sample.amodal, style)
        question = next(part["text"] for part in messages[0]["content"] if part["type"] == "text")
        text: str = before.replace(self.image_token, self.family.placeholders(self.processor, grid)) + question + after
        return text

    @lru_cache(maxsize=16)  # noqa: B019 - two entries a style, and the collator lives as long as the run
    def _template(self, amodal: bool, style: str | None) -> tuple[str, str]:
        """Render the chat template once: what stands before the question, and after it."""
        messages = self.codec.messages("phrase", amodal=amodal, prompt=style)
        question = next(part["text"] for part in messages[0]["content"] if part["type"] == "text")
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        before, found, after = text.partition(question)
        if not found or before.count(self.image_token) != 1:
            raise ModelError(
                f"the chat template does not put one image before the question: use a {self.family.name} checkpoint"
            )
        if self.thinking and after.rstrip().endswith("</think>"):  # a second reasoning would be taught behind it
            raise ModelError(
                "the chat template ends the reasoning before the answer begins: set data.thinking to false, or give "
                "the checkpoint a template that opens <think>"
            )
        return before, after

    def _target(self, sample: Sample, grid: Grid, *, thinking: bool) -> str:
        truth = sample.boxes if sample.box is None else sample.box
        if truth is None:
            raise DataError(f"sample {sample.id} has no box: training needs one in every row")
        if self.thinking and not sample.rationale:
            raise DataError(f"sample {sample.id} has no rationale: add one, or set data.thinking to false")
        size = sample.size or load_image(sample.image).size
        rationale = sample.rationale if thinking else None
        seen_size = self.family.seen_size(self.processor, grid)
        return self.codec.target(sample.phrase, truth, size=size, rationale=rationale, seen_size=seen_size)
