"""A gate fitted to paired answers: a measure and thresholds from some pictures, certified on the others."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from egm import stats
from egm.calibrate.bound import HIGHEST, certified, p_values, picture_sums
from egm.calibrate.paired import PairedAnswers, read_pairs
from egm.datasets.benchmarks import MEASURE_TITLES
from egm.environment import package_versions
from egm.errors import DataError, EgmError
from egm.journal import Header
from egm.stats import Estimate, FloatArray, IntArray
from egm.terminal import command_line
from egm.thinking import Gate

TUNING_SHARE: Final = 0.2
"""Share of the pictures that measure and thresholds are chosen on; the others certify."""
COVERAGES: Final = tuple(step / 100 for step in range(1, 101))
"""Shares of direct answers to be taken, for which thresholds are tried, from the safest."""
_METHOD: Final = "Learn then Test, fixed sequence, one bet a picture"


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a threshold does, on the pictures that it was not chosen on.

    Attributes:
        threshold: The least certainty at which a direct answer is taken.
        taken: Share of questions whose direct answer is taken.
        tokens: Tokens a question, both answers where both are asked for.
        accuracy: Share of right answers, with its 95 % interval by picture.
        loss: That of always thinking minus it, with its 95 % interval by picture.
        p_value: Of the hypothesis that it costs more than is allowed.
        certified: Whether that is rejected, and for all safer thresholds too.
        reasoning: Tokens of reasoning a question; None where they are not counted.
    """

    threshold: float
    taken: float
    tokens: float
    accuracy: Estimate
    loss: Estimate
    p_value: float
    certified: bool
    reasoning: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted gate, and what it was chosen from.

    Attributes:
        measure: What it goes by.
        points: Most accuracy that it may cost, in points.
        confidence: With which that is so.
        curve: Thresholds from the safest on.
        chosen: The certified one that takes fewest tokens; None where none of them saves any.
        always: Accuracy and tokens of always thinking, on the same pictures.
        never: Those of never thinking.
        pictures: How many certify.
        questions: About these.
        most: Most questions about one picture.
        seed: Of the choice of pictures.
        counted: What counts as right, as tables call it.
        reasoning: Tokens of reasoning a question of always thinking; None where they are not counted.
    """

    measure: str
    points: float
    confidence: float
    curve: tuple[Threshold, ...]
    chosen: Threshold | None
    always: tuple[Estimate, float]
    never: tuple[Estimate, float]
    pictures: int
    questions: int
    most: int
    seed: int
    counted: str = MEASURE_TITLES["acc@0.5"]
    reasoning: float | None = None

    @property
    def saved(self) -> float:
        """Share of always thinking's tokens that the gate saves."""
        return 0.0 if self.chosen is None else 1 - self.chosen.tokens / self.always[1]

    @property
    def saved_reasoning(self) -> float | None:
        """Share of always thinking's tokens of reasoning that the gate saves; None where they are not counted."""
        left = self.reasoning if self.chosen is None else self.chosen.reasoning
        return 1 - left / self.reasoning if self.reasoning and left is not None else None

    def gate(self, header: Header, expects: Sequence[str] = ("one",)) -> Gate:
        """Make the gate for what a run was about.

        Args:
            header: Of the run with thinking.
            expects: How many boxes its questions expect, each way that occurs.
        """
        chosen = self.chosen
        settings = {name: value for name, value in header.settings.items() if name not in ("think", "seed")}
        facts = {
            "bound": {
                "points": self.points,
                "confidence": self.confidence,
                "pictures": self.pictures,
                "questions": self.questions,
                "most_questions": self.most,
                "method": _METHOD,
            },
            "expected": {
                "accuracy_always": self.always[0].value,
                "tokens_always": self.always[1],
                "accuracy_never": self.never[0].value,
                "tokens_never": self.never[1],
                "accuracy": self.always[0].value if chosen is None else chosen.accuracy.value,
                "tokens": self.always[1] if chosen is None else chosen.tokens,
                "thought": 1.0 if chosen is None else 1 - chosen.taken,
            },
            "expects": list(expects),
            "seed": self.seed,
            "datasets": {name: dict(about) for name, about in header.datasets.items()},
            "curve": [asdict(each) for each in self.curve],
            "versions": {**header.versions, **package_versions("numpy")},
            "command": list(command_line()),
        }
        return Gate(
            measure=self.measure,
            threshold=None if chosen is None else chosen.threshold,
            model=header.model,
            tensors=header.engine.get("tensors"),
            codec=header.codec,
            prompt={name: header.prompt[name] for name in ("style", "modal")},
            settings=settings,
            facts=facts,
        )


def calibrate(
    direct: str | os.PathLike[str],
    thinking: str | os.PathLike[str],
    *,
    points: float = 0.5,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Gate, Calibration]:
    """Fit a gate to two runs of the same questions, asked with think=never and think=always.

    Args:
        direct: Run folder of the direct answers.
        thinking: Run folder of the answers after thinking.
        points: As of `fit_gate`.
        confidence: As of `fit_gate`.
        seed: As of `fit_gate`.

    Raises:
        DataError: As `read_pairs` and `fit_gate` raise.
        EgmError: As `fit_gate` raises.
    """
    pairs, _, header = read_pairs(direct, thinking)
    found = fit_gate(pairs, points=points, confidence=confidence, seed=seed)
    return found.gate(header, pairs.expects), found


def check_enough(pictures: IntArray, *, points: float, confidence: float) -> None:
    """Refuse to calibrate where not even a threshold that loses nothing could be certified.

    Args:
        pictures: Shape (N,): number of each question's picture, from 0.
        points: As of `fit_gate`.
        confidence: As of `fit_gate`.

    Raises:
        EgmError: If a number is out of range.
        DataError: If there are too few pictures.
    """
    if not 0 < points < 100 or not 0 < confidence < 1:
        raise EgmError(f"points {points} and confidence {confidence} are out of range: give above 0 to 100, and 0 to 1")
    allowed, each = points / 100, np.bincount(pictures)
    # By a picture, at the highest stake.
    won = float(np.log1p(HIGHEST * allowed * each.mean() / (each.max() * (1 - allowed))))
    wanted = float(np.log(1 / (1 - confidence))) / won / (1 - TUNING_SHARE) * 1.1 if won > 0 else math.inf
    needed = int(min(wanted, 1e9)) + 2
    if len(each) < needed:
        raise DataError(
            f"{len(each):,} pictures are too few to certify a loss of {points:g} points with confidence "
            f"{confidence:g}: ask about {needed:,} at least, or allow more (--points)"
        )


def fit_gate(
    pairs: PairedAnswers,
    *,
    points: float = 0.5,
    confidence: float = 0.95,
    seed: int = 0,
    measures: Sequence[str] | None = None,
    coverages: Sequence[float] = COVERAGES,
) -> Calibration:
    """Choose the threshold that saves most tokens among those that are certified to cost at most so much accuracy.

    With probability `confidence` over the draw of the calibration's pictures, the gated answers' expected accuracy
    lies at most `points` below that of always thinking, per question, on pictures drawn from the same population;
    `egm.calibrate.bound` says under which assumptions. Measure, thresholds and the first stakes are chosen on a
    fifth of the pictures, which certify nothing.

    Args:
        pairs: The answers.
        points: Most accuracy that the gate may cost, in points (0.5 is 0.005).
        confidence: Within (0, 1).
        seed: Of the choice of pictures, and of the order in which they certify.
        measures: What the gate may go by; by default all that are known.
        coverages: Shares of direct answers to be taken, ascending.

    Raises:
        EgmError: If a number is out of range.
        DataError: If there are too few pictures to certify anything.
    """
    check_enough(pairs.pictures, points=points, confidence=confidence)
    allowed, delta = points / 100, 1 - confidence
    most = int(np.bincount(pairs.pictures).max())
    tuning_rows = _is_tuning(pairs, seed)
    tuning, rest = (pairs.take(np.flatnonzero(rows)) for rows in (tuning_rows, ~tuning_rows))
    known = {name for name, values in tuning.certainties.items() if np.isfinite(values).any()}
    names = [name for name in (measures or tuning.certainties) if name in known]
    if not names:
        raise DataError("nothing is known of how sure the direct answers are: ask with log-probabilities")
    measure = min(names, key=lambda name: _best_tokens(tuning, name, coverages, allowed))
    thresholds = _thresholds(tuning.certainties[measure], coverages)
    before, excess = (_excess(part, measure, thresholds, allowed) for part in (tuning, rest))
    order = np.random.default_rng(seed).permutation(len(excess))  # files may be sorted by anything
    p = p_values(excess[order], before, most * (1 - allowed))
    safe = certified(p, delta)
    curve = tuple(
        _threshold(rest, measure, float(threshold), float(p[place]), place < safe)
        for place, threshold in enumerate(thresholds)
    )
    always = _mean(rest, rest.thinking), float(rest.thinking_tokens.mean())
    saving = [each for each in curve if each.certified and each.tokens < always[1]]
    return Calibration(
        measure,
        points,
        confidence,
        curve,
        min(saving, key=lambda each: each.tokens, default=None),
        always,
        (_mean(rest, rest.direct), float(rest.direct_tokens.mean())),
        len(np.unique(rest.pictures)),
        len(rest.pictures),
        most,
        seed,
        pairs.counted,
        _mean_if_told(None if rest.reasoning is None else rest.reasoning[1]),
    )


def _is_tuning(pairs: PairedAnswers, seed: int) -> Any:
    """Of each row whether its picture is one of those for choosing: a fifth, by a hash of the seed and its number."""
    count = int(pairs.pictures.max()) + 1
    drawn = sorted(range(count), key=lambda number: hashlib.sha256(f"{seed}/{number}".encode()).digest())
    chosen = np.zeros(count, dtype=bool)
    chosen[drawn[: math.ceil(TUNING_SHARE * count)]] = True
    return chosen[pairs.pictures]


def _thresholds(certainties: FloatArray, coverages: Sequence[float]) -> FloatArray:
    """The certainty that each share of the direct answers reaches, descending, each once; unknown ones reach none."""
    known = np.sort(certainties[np.isfinite(certainties)])[::-1]
    places = np.ceil(np.asarray(coverages) * len(certainties)).astype(int) - 1
    return np.unique(known[np.minimum(places, len(known) - 1)])[::-1]


def _taken(pairs: PairedAnswers, measure: str, thresholds: FloatArray) -> FloatArray:
    """Whether each direct answer is taken at each threshold, shape (rows, thresholds)."""
    return np.asarray(pairs.certainties[measure][:, None] >= thresholds, dtype=np.float64)


def _excess(pairs: PairedAnswers, measure: str, thresholds: FloatArray, allowed: float) -> FloatArray:
    """Loss of each picture beyond what is allowed, shape (pictures, thresholds)."""
    loss = (pairs.thinking - pairs.direct)[:, None] * _taken(pairs, measure, thresholds)
    return picture_sums(loss - allowed, pairs.pictures)


def _best_tokens(pairs: PairedAnswers, measure: str, coverages: Sequence[float], allowed: float) -> float:
    """Fewest tokens a question among thresholds that seem to cost no more than is allowed."""
    thresholds = _thresholds(pairs.certainties[measure], coverages)
    taken = _taken(pairs, measure, thresholds)
    loss = ((pairs.thinking - pairs.direct)[:, None] * taken).mean(axis=0)
    fits = np.flatnonzero(loss <= allowed)
    costs = [float(pairs.tokens(measure, taken[:, place]).mean()) for place in fits]
    return min(costs, default=float("inf"))


def _threshold(pairs: PairedAnswers, measure: str, threshold: float, p_value: float, safe: bool) -> Threshold:
    taken = np.asarray(pairs.certainties[measure] >= threshold, dtype=np.float64)
    loss = (pairs.thinking - pairs.direct) * taken
    spread = _mean(pairs, (1 + loss) / 2)
    return Threshold(
        threshold,
        float(taken.mean()),
        float(pairs.tokens(measure, taken).mean()),
        _mean(pairs, np.where(taken > 0, pairs.direct, pairs.thinking)),
        replace(spread, value=2 * spread.value - 1, low=2 * spread.low - 1, high=2 * spread.high - 1),
        p_value,
        safe,
        _mean_if_told(pairs.reasoning_tokens(measure, taken)),
    )


def _mean_if_told(tokens: FloatArray | None) -> float | None:
    return None if tokens is None else float(tokens.mean())


def _mean(pairs: PairedAnswers, values: FloatArray) -> Estimate:
    return stats.cluster_mean(values, pairs.pictures)
