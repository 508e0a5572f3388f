r"""Rewards: what a completion is worth, read and scored as evaluation reads and scores it.

A reward is a weighted sum of *terms* of the overlap with the true box, then *modifiers*: the format gate multiplies the
sum, the overlong and repetition penalties are added. In a recipe:

```yaml
reward:
  terms:
    - {kind: mix, alpha: 0.5, threshold: 0.5}
  format_gate: {factor: 0.5}
  overlong: {limit: 320, buffer: 64}
  repetition: {run: 7, penalty: 0.3}
```

Unless one box is expected, all answered boxes are held against all true ones (`scoring.overlaps_of`): none is free.

Texts are read by the codec and scored by `scoring.score_all`, in float pixels of the original image, whose size comes
with the sample; so the share of hits here is the Acc@0.5 of `egm eval` on the same texts.

EGM's own code is github.com/zgq1879/EGM (d8ca4cc), its rewards `verl/verl/utils/reward_score/grounding.py`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from egm.boxes import Box
from egm.codecs import Codec
from egm.datasets.fields import short
from egm.errors import DataError
from egm.scoring import Truth, overlaps_of, score_all
from egm.training.recipe import Section
from egm.types import Expect, Grounding, Score

FloatArray: TypeAlias = NDArray[np.float64]
_MODIFIERS = ("format_gate", "overlong", "repetition")


class TermSection(Section):
    """A term of the overlap, of one of several kinds."""

    kind: str
    """Which term."""
    weight: float = 1.0
    """Factor of the term in the sum."""


class Mix(TermSection):
    """`alpha * [IoU >= threshold] + (1 - alpha) * IoU`: EGM's own (arXiv 2601.13633, both constants 0.5)."""

    kind: Literal["mix"] = "mix"
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Share of the hit in the term."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """The IoU from which on a box is a hit."""

    def values(self, iou: FloatArray, giou: FloatArray) -> FloatArray:  # noqa: ARG002
        """Return the term of each completion, shape (N,)."""
        return self.alpha * (iou >= self.threshold) + (1.0 - self.alpha) * iou


class IoU(TermSection):
    """`IoU`: the plain overlap (VLM-R1, arXiv 2504.07615)."""

    kind: Literal["iou"] = "iou"

    def values(self, iou: FloatArray, giou: FloatArray) -> FloatArray:  # noqa: ARG002
        """Return the term of each completion, shape (N,)."""
        return iou


class IoUSquared(TermSection):
    """`IoU ** 2`: rewards the last pixels more than the first (Perception-R1, arXiv 2504.07954)."""

    kind: Literal["iou_squared"] = "iou_squared"

    def values(self, iou: FloatArray, giou: FloatArray) -> FloatArray:  # noqa: ARG002
        """Return the term of each completion, shape (N,)."""
        return iou**2


class GIoUBelow(TermSection):
    """`IoU` from the threshold on, `GIoU` below it, so that a miss still tells near from far.

    NeMo-RL's (github.com/NVIDIA-NeMo/RL, `bbox_giou_reward` in `nemo_rl/environments/rewards.py`); there an answer that
    cannot be read gets 0. GIoU (arXiv 1902.09630) lies in (-1, 1] and is at most the IoU; an answer without a box gets
    its infimum, -1.
    """

    kind: Literal["giou_below"] = "giou_below"
    threshold: float = Field(default=0.5, ge=0, le=1)
    """The IoU below which GIoU counts."""

    def values(self, iou: FloatArray, giou: FloatArray) -> FloatArray:
        """Return the term of each completion, shape (N,)."""
        return np.where(iou >= self.threshold, iou, giou)


class Sigmoid(TermSection):
    """`1 / (1 + exp(-slope * (IoU - threshold)))`: a soft hit (`sigmoid` in EGM's own code, slope 8)."""

    kind: Literal["sigmoid"] = "sigmoid"
    slope: float = Field(default=8.0, gt=0)
    """How steeply the term rises around the threshold."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """The IoU that earns one half."""

    def values(self, iou: FloatArray, giou: FloatArray) -> FloatArray:  # noqa: ARG002
        """Return the term of each completion, shape (N,)."""
        return 1.0 / (1.0 + np.exp(-self.slope * (iou - self.threshold)))


class NormalisedExp(TermSection):
    """`(1 - base ** -IoU) / (1 - 1 / base)`: rewards the first pixels more than the last.

    `normalized_exp` in EGM's own code, base 16.
    """

    kind: Literal["normalised_exp"] = "normalised_exp"
    base: float = Field(default=16.0, gt=1)
    """The larger, the more the first pixels earn."""

    def values(self, iou: FloatArray, giou: FloatArray) -> FloatArray:  # noqa: ARG002
        """Return the term of each completion, shape (N,)."""
        return (1.0 - self.base**-iou) / (1.0 - 1.0 / self.base)


Term: TypeAlias = Annotated[Mix | IoU | IoUSquared | GIoUBelow | Sigmoid | NormalisedExp, Field(discriminator="kind")]


class FormatGate(Section):
    """`factor * total` for a text out of form that earns more than 0: this project's own.

    Others add a reward for the form (DeepSeek-R1, arXiv 2501.12948), which a text with a wrong box earns as well. In
    form is a text that holds exactly one box, read without any repair. Only what is above 0 is multiplied, so that
    breaking the form never makes a penalty smaller. "Nothing matches" is in form, but not in words, where it may be
    said, and so is any number of boxes where all are asked for.
    """

    factor: float = Field(default=0.5, ge=0, le=1)
    """1 never minds the form, 0 pays nothing without it."""
    reasoning: bool = False
    """Whether a text must also hold some reasoning, against its collapse to nothing."""

    def passes(self, grounding: Grounding) -> bool:
        """Tell whether a text is in form."""
        fits = grounding.expect == "all" or len(grounding.boxes) == (0 if grounding.is_none else 1)
        fits = fits and grounding.failure is None and not grounding.repairs
        return fits and (bool(grounding.reasoning) or not self.reasoning)


class Overlong(Section):
    """Soft overlong punishment in tokens (DAPO, arXiv 2503.14476, equation 13), times `weight`.

    0 up to `limit - buffer` tokens, then falling linearly to -1 at `limit`, and -1 beyond.
    """

    limit: int = Field(ge=1)
    """Tokens from which the whole penalty applies."""
    buffer: int = Field(default=64, ge=1)
    """Over how many tokens before the limit the penalty grows."""
    weight: float = Field(default=1.0, ge=0)
    """Size of the whole penalty."""

    def values(self, tokens: NDArray[np.int64]) -> FloatArray:
        """Return the penalty of each completion, shape (N,), from its length in tokens."""
        return self.weight * np.clip((self.limit - self.buffer - tokens) / self.buffer, -1.0, 0.0)


class Repetition(Section):
    """`-penalty` for a text in which one word stands `run` times in a row.

    Part of `penalty` in EGM's own code, 0.3 for 7.
    """

    run: int = Field(default=7, ge=2)
    """How many times in a row the word must stand."""
    penalty: float = Field(default=0.3, ge=0)
    """Size of the penalty."""

    def values(self, texts: Sequence[str]) -> FloatArray:
        """Return the penalty of each completion, shape (N,)."""
        repeated = _repeated(self.run)
        return np.array([-self.penalty if repeated.search(text) else 0.0 for text in texts])


@lru_cache(maxsize=8)
def _repeated(run: int) -> re.Pattern[str]:
    # Possessive: linear in the length of the text.
    return re.compile(rf"(?<!\S)(\S++)(?:\s++\1(?!\S)){{{run - 1}}}")


class RewardSection(Section):
    """What a recipe says of the reward."""

    terms: tuple[Term, ...] = Field(default=(Mix(),), min_length=1)
    """Terms of the overlap; their weighted sum is the base."""
    format_gate: FormatGate | None = None
    """Multiplies the base of texts out of form."""
    overlong: Overlong | None = None
    """Penalty for length, added."""
    repetition: Repetition | None = None
    """Penalty for repeated words, added."""


@dataclass(frozen=True, slots=True)
class Grades:
    """What some completions were worth.

    Attributes:
        groundings: Each as the codec read it.
        scores: Each against its truth.
        parts: By name, what went into the total, each of shape (N,): the weighted terms, `format_gate` (the factor),
            `overlong` and `repetition`.
        totals: The rewards, shape (N,).
    """

    groundings: list[Grounding]
    scores: list[Score]
    parts: dict[str, FloatArray]
    totals: FloatArray

    @property
    def terms(self) -> FloatArray:
        """What the terms gave together, before the format gate and the penalties, shape (N,)."""
        own = [values for name, values in self.parts.items() if name not in _MODIFIERS]
        return np.sum(own, axis=0)  # type: ignore[no-any-return]

    def accuracy(self, threshold: float = 0.5) -> float:
        """Return the share of hits, as `egm eval` counts them."""
        return sum(score.hit(threshold) for score in self.scores) / len(self.scores)


class Reward:
    r"""A reward function for TRL.

    Args:
        section: What the reward is made of.
        codec: How texts are read.

    Example:
        >>> from egm.codecs import get_codec
        >>> reward = Reward(RewardSection(), get_codec("qwen3_vl"))
        >>> text = 'It is at the left.\n</think>\n\n[{"bbox_2d": [0, 0, 500, 1000]}]'
        >>> reward([None], [text], truth=[(0, 0, 64, 100)], size=[(100, 100)])
        [0.890625]
    """

    __name__ = "reward"  # what TRL calls its metrics by

    def __init__(self, section: RewardSection, codec: Codec) -> None:
        self.section, self.codec = section, codec

    def __call__(
        self,
        prompts: Sequence[Any],  # noqa: ARG002 - TRL's signature
        completions: Sequence[Any],
        completion_ids: Sequence[Collection[int]] | None = None,
        *,
        truth: Sequence[Sequence[Any]],
        size: Sequence[tuple[int, int]],
        amodal: Sequence[bool] | None = None,
        seen_size: Sequence[tuple[int, int] | None] | None = None,
        phrase: Sequence[str] | None = None,
        expect: Sequence[Expect] | None = None,
        **columns: Any,  # noqa: ARG002
    ) -> list[float]:
        """Return the rewards of a batch, as TRL's trainers call it.

        Args:
            prompts: Not looked at.
            completions: Texts, or lists that hold one assistant message.
            completion_ids: Their tokens, for the overlong penalty.
            truth: True boxes in pixels, `x1, y1, x2, y2`; where not exactly one is expected, a list of these each.
            size: Width and height of each upright image in pixels.
            amodal: Whether each box may leave the frame.
            seen_size: Sizes as the model saw them, for codecs that speak pixels.
            phrase: What was asked; its words and numbers said again are no answer.
            expect: How many boxes were asked for; "one" by default.
            **columns: Whatever else a dataset has, not looked at.

        Raises:
            DataError: If a truth is no box, a completion holds no text, or lengths are needed and not given.
        """
        grades = self.grade(
            [_text(completion) for completion in completions],
            truths=[_truth(corners) for corners in truth],
            sizes=size,
            amodal=amodal,
            seen_sizes=seen_size,
            phrases=phrase,
            expects=expect,
            tokens=None if completion_ids is None else [len(ids) for ids in completion_ids],
        )
        return [float(total) for total in grades.totals]

    def grade(
        self,
        texts: Sequence[str],
        *,
        truths: Sequence[Truth],
        sizes: Sequence[tuple[int, int]],
        amodal: Sequence[bool] | None = None,
        seen_sizes: Sequence[tuple[int, int] | None] | None = None,
        tokens: Sequence[int] | None = None,
        finish_reasons: Sequence[str] | None = None,
        phrases: Sequence[str] | None = None,
        expects: Sequence[Expect] | None = None,
    ) -> Grades:
        """Read, score and reward some texts.

        Args:
            texts: Completions, reasoning included.
            truths: True boxes in pixels of the upright original images, one each or all of each.
            sizes: Width and height of these images.
            amodal: Whether each box may leave the frame; no by default.
            seen_sizes: Sizes as the model saw them; only codecs that speak pixels ask.
            tokens: Lengths in tokens; only the overlong penalty asks.
            finish_reasons: "length" where the token limit cut a text off; it only names failures.
            phrases: What was asked, without which an echo of its numbers is read as a box, as evaluation does not.
            expects: How many boxes were asked for; one by default.

        Raises:
            DataError: If the overlong penalty needs lengths and none came.
        """
        groundings = [
            self.codec.parse(
                text,
                size=(int(sizes[i][0]), int(sizes[i][1])),
                finish_reason=finish_reasons[i] if finish_reasons else "stop",
                amodal=bool(amodal[i]) if amodal else False,
                seen_size=seen_sizes[i] if seen_sizes else None,
                phrase=phrases[i].strip() if phrases else "",
                **({} if expects is None or expects[i] == "one" else {"expect": expects[i]}),
            )
            for i, text in enumerate(texts)
        ]
        scores = score_all(groundings, truths)
        iou, giou = overlaps_of(groundings, truths)
        parts: dict[str, FloatArray] = {}
        for term in self.section.terms:
            earlier = parts.get(term.kind, 0.0)
            parts[term.kind] = earlier + term.weight * term.values(iou, giou)
        totals = np.sum(list(parts.values()), axis=0)
        return Grades(groundings, scores, parts, self._modify(totals, parts, groundings, texts, tokens))

    def _modify(
        self,
        totals: FloatArray,
        parts: dict[str, FloatArray],
        groundings: Sequence[Grounding],
        texts: Sequence[str],
        tokens: Sequence[int] | None,
    ) -> FloatArray:
        """Apply the modifiers, and note what each of them did in `parts`."""
        section = self.section
        if section.format_gate is not None:
            passed = np.array([section.format_gate.passes(grounding) for grounding in groundings])
            parts["format_gate"] = np.where(passed, 1.0, section.format_gate.factor)
            totals = np.where(totals > 0, totals * parts["format_gate"], totals)
        if section.overlong is not None:
            if tokens is None:
                raise DataError("reward.overlong counts tokens, and none came: give completion_ids, or leave it out")
            parts["overlong"] = section.overlong.values(np.asarray(tokens, dtype=np.int64))
            totals = totals + parts["overlong"]
        if section.repetition is not None:
            parts["repetition"] = section.repetition.values(texts)
            totals = totals + parts["repetition"]
        return totals


def _truth(corners: Sequence[Any]) -> Truth:
    return [Box(*each) for each in corners] if not corners or isinstance(corners[0], Sequence) else Box(*corners)


def _text(completion: Any) -> str:
    """Return the text of a completion: itself, or the content of the last message, whole or in parts.

    Raises:
        DataError: If it holds none.
    """
    if isinstance(completion, str):
        return completion
    last = completion[-1] if isinstance(completion, Sequence) and completion else None
    content = last.get("content") if isinstance(last, Mapping) else None
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and content:
        texts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        if all(isinstance(text, str) for text in texts):
            return "".join(map(str, texts))
    raise DataError(f"completion {short(completion)} is no text, nor messages of which the last holds one")
