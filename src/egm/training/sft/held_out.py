"""Held-out samples, measured while training: the loss over their targets, and Acc@0.5 of greedy answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from egm.backends import GenerationSettings
from egm.codecs import Codec
from egm.errors import DataError, EgmError
from egm.grounder import Grounder
from egm.progress import track
from egm.scoring import score
from egm.training.data import Rows
from egm.training.sft.recipe import EvalSection
from egm.types import Sample


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out samples, and how they are asked.

    Attributes:
        losses: Samples whose loss is taken.
        greedy: Samples that are answered greedily.
        prompt: Prompt style of the codec.
        max_new_tokens: Where an answer is cut off.
    """

    losses: Sequence[Sample]
    greedy: Sequence[Sample]
    prompt: str | None
    max_new_tokens: int


def choose_held_out(rows: Rows, section: EvalSection, *, thinking: bool, prompt: str | None) -> HeldOut:
    """Take the first samples of the held-out rows.

    Raises:
        DataError: If a sample cannot be measured.
    """
    wanted = max(section.samples, section.greedy)
    samples = list(islice((sample for index in range(len(rows)) for sample in rows[index]), wanted))
    losses, greedy = samples[: section.samples], samples[: section.greedy]
    if thinking and (bare := next((sample for sample in losses if not sample.rationale), None)):
        raise DataError(
            f"sample {bare.id} of eval.data {section.data} has no rationale to take the loss of: set eval.samples to "
            "0, and eval.greedy to how many are to be answered"
        )
    if bare := next((sample for sample in samples if sample.truths is None), None):
        raise DataError(f"sample {bare.id} of eval.data {section.data} has no box: held-out samples need one")
    return HeldOut(losses, greedy, prompt, section.max_new_tokens)


def answer_greedily(
    model: Any, processor: Any, codec: Codec, held_out: HeldOut, samples: Sequence[Sample], *, batch_size: int
) -> tuple[int, float]:
    """Answer samples greedily and score them; an answer without a box scores 0.

    Args:
        model: The model, in evaluation mode.
        processor: Its processor.
        codec: Its convention.
        held_out: How to ask.
        samples: Which of its samples.
        batch_size: Samples answered together.

    Returns:
        How many have IoU >= 0.5, and the sum of the IoUs.
    """
    from egm.backends.transformers import TransformersBackend

    settings = GenerationSettings(max_new_tokens=held_out.max_new_tokens)
    backend = TransformersBackend(model, processor, fast_prompts=False)  # no graphs beside the optimizer's memory
    grounder = Grounder(backend, codec, settings=settings, prompt=held_out.prompt, batch_size=batch_size)
    hits, total = 0, 0.0
    asked = zip(samples, grounder.ground_each(samples), strict=True)
    for sample, grounding in track(asked, "answering held-out samples", len(samples)):
        if isinstance(grounding, EgmError):
            raise grounding
        assert sample.truths is not None  # checked by `choose_held_out`
        result = score(grounding, sample.truths)
        hits, total = hits + result.hit(), total + result.iou
    return hits, total
