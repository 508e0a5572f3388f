"""Prompts for a generation: each phrase tokenised once, each picture processed once, prefetched by workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from egm.codecs import Codec
from egm.errors import DataError, EgmError
from egm.models.decode.prompt_batch import PromptBatch, make_prompts
from egm.models.families import Family, Qwen3VLFamily
from egm.training.data import Rows
from egm.training.data.pictures import load_pictures
from egm.training.data.styles import choose_prompt
from egm.training.data.workers import end_workers, end_workers_at_exit, ignore_signals, without_traceback
from egm.training.recipe import Prompts as PromptStyles
from egm.types import Sample


@dataclass(frozen=True, slots=True)
class Prompts(PromptBatch):
    """Prompts as a model takes them, with the samples that they are of.

    Attributes:
        samples: One a prompt, in order.
        sizes: Width and height of each picture in pixels, upright, as it was found.
    """

    samples: list[Sample]
    sizes: list[tuple[int, int]]

    def part(self, chosen: Sequence[int]) -> Prompts:
        """Return the prompts with these numbers, with the pictures that they are about."""
        left = sorted({self.pictures[number] for number in chosen})  # as `PromptBatch.part` numbers them anew
        part = PromptBatch.part(self, chosen)
        samples, sizes = [self.samples[number] for number in chosen], [self.sizes[picture] for picture in left]
        return Prompts(part.ids, part.pictures, part.pixels, part.grids, samples=samples, sizes=sizes)


class PromptCollator:
    """Collates samples into `Prompts`: each phrase tokenised, each picture loaded and processed once.

    Args:
        processor: The model's processor.
        codec: The model's convention.
        prompt: Prompt style, or several of which each sample is asked in one; None takes the codec's own.
        max_tokens: Most tokens of a prompt; None for no limit.
        family: The model's family; Qwen3-VL if not given.
        fast: Whether the model has its fast path on.
    """

    def __init__(
        self,
        processor: Any,
        codec: Codec,
        prompt: PromptStyles | None,
        max_tokens: int | None = None,
        *,
        family: Family | None = None,
        fast: bool = True,
    ) -> None:
        self.processor, self.codec, self.prompt, self.max_tokens = processor, codec, prompt, max_tokens
        self.family, self.fast = family or Qwen3VLFamily(), fast
        for style in (prompt,) if prompt is None or isinstance(prompt, str) else prompt:
            codec.messages("anything", prompt=style)  # so that an unknown style is refused now

    def styled(self, prompt: PromptStyles | None, max_tokens: int | None = None) -> PromptCollator:
        """Return one for another prompt style, and another limit."""
        return PromptCollator(self.processor, self.codec, prompt, max_tokens, family=self.family, fast=self.fast)

    def __call__(self, samples: Sequence[Sample]) -> Prompts:
        """Make the prompts.

        Raises:
            DataError: If a sample has no box, or does not fit its picture (see `load_pictures`), or its prompt is too
                long.
            ImageError: If a picture cannot be read.
        """
        if bare := next((sample for sample in samples if sample.truths is None), None):
            raise DataError(f"sample {bare.id} has no box: a reward needs one in every row")
        images, pictures = load_pictures(samples)
        texts = [
            self.processor.apply_chat_template(
                self.codec.messages(
                    sample.phrase,
                    amodal=sample.amodal,
                    prompt=choose_prompt(self.prompt, sample.id),
                    **({} if sample.expect == "one" else {"expect": sample.expect}),
                ),
                tokenize=False,
                add_generation_prompt=True,
            )
            for sample in samples
        ]
        batch = make_prompts(self.processor, texts, pictures, images, family=self.family, fast=self.fast)
        for sample, ids in zip(samples, batch.ids, strict=True):
            if self.max_tokens is not None and len(ids) > self.max_tokens:
                raise DataError(
                    f"the prompt of sample {sample.id} takes {len(ids)} tokens, over rollout.max_prompt "
                    f"{self.max_tokens}: raise it, or lower the image size"
                )
        sizes = [image.size for image in images]
        return Prompts(batch.ids, batch.pictures, batch.pixels, batch.grids, samples=list(samples), sizes=sizes)


class SampleTable(torch.utils.data.Dataset[Sample]):
    """The samples of rows by number: all rows at equal length, so that a number alone says what is asked.

    A row with fewer samples than others repeats its first ones; in place of one without any, as a scene can be of which
    nothing clear can be asked, stands the next that has some.

    Args:
        rows: The rows.
        order: Rows in the order in which they are asked; None takes them as they are.
    """

    def __init__(self, rows: Rows, order: Sequence[int] | None = None) -> None:
        self._rows, self._order, self._each = rows, order, rows.samples_per_row
        self._last: tuple[int, list[Sample]] = (-1, [])

    def __len__(self) -> int:
        return len(self._rows) * self._each

    def __getitem__(self, number: int) -> Sample:
        place, inside = divmod(int(number), self._each)
        if self._last[0] != place:
            self._last = (place, self._samples(place))
        samples = self._last[1]
        return samples[inside % len(samples)]

    def _samples(self, place: int) -> list[Sample]:
        count = len(self._rows)
        for other in range(place, place + count):
            row = other % count
            if samples := self._rows[row if self._order is None else int(self._order[row])]:
                return samples
        raise DataError("there is not one sample to ask about: check data.train")


class PromptPrefetcher:
    """Prefetches the prompts of the coming generations while the present one is worked on.

    Args:
        table: All samples.
        collator: Makes prompts of them.
        stride: How far apart the numbers of two generations are: the prompts of all processes.
        workers: Processes that prefetch; 0 makes each generation's prompts when they are asked for.
    """

    def __init__(self, table: SampleTable, collator: PromptCollator, *, stride: int, workers: int) -> None:
        self._table, self._collator, self._stride, self._workers = table, collator, stride, workers
        self._batches: Iterator[Prompts] | None = None
        self._next: list[int] = []

    def get(self, numbers: Sequence[int]) -> Prompts:
        """Return the prompts of the samples with these numbers; quick if they follow the last ones by one stride."""
        if self._workers == 0:
            return self._collator([self._table[number] for number in numbers])
        if self._batches is None or list(numbers) != self._next:
            self.close()
            end_workers_at_exit()
            self._batches = iter(
                torch.utils.data.DataLoader(
                    self._table,
                    batch_sampler=list(self._from(numbers)),
                    collate_fn=self._collator,
                    num_workers=self._workers,
                    prefetch_factor=2,
                    worker_init_fn=ignore_signals,
                )
            )
        try:
            prompts = next(self._batches)
        except EgmError as error:
            raise without_traceback(error) from error
        self._next = [number + self._stride for number in numbers]
        if self._next[-1] >= len(self._table):
            self.close()
        return prompts

    def close(self) -> None:
        """End the processes; the next prompts that are asked for begin new ones."""
        end_workers(self._batches)
        self._batches = None

    def _from(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        for shift in range(0, len(self._table) - max(numbers), self._stride):
            yield [number + shift for number in numbers]
