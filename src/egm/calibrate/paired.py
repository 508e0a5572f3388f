"""The same questions answered directly and after thinking, as arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from egm import stats
from egm.datasets.benchmarks import MEASURE_TITLES, measure_title
from egm.errors import DataError
from egm.journal import ERROR, Header, Record, read_whole_run
from egm.stats import FloatArray, IntArray
from egm.thinking import MEASURES

_MAY_DIFFER = ("settings.think ", "concurrency ")


@dataclass(frozen=True, slots=True)
class PairedAnswers:
    """Questions with both answers; a row is a question.

    Attributes:
        pictures: Shape (N,): number of the question's picture.
        direct: Shape (N,): 1 where the direct answer is right, else 0.
        thinking: Shape (N,): the same of the answer after thinking.
        direct_tokens: Shape (N,): tokens that the direct answer took.
        thinking_tokens: Shape (N,): tokens of the other, reasoning included.
        certainties: By measure (`egm.thinking.MEASURES`) of shape (N,): how sure the direct answer is; minus infinity
            where that is not known, which no threshold reaches.
        expects: How many boxes are expected, each way that occurs.
        counted: What counts as right, as tables call it.
        reasoning: Of `direct_tokens` and of `thinking_tokens` those of reasoning, each of shape (N,); None where they
            are not counted.
    """

    pictures: IntArray
    direct: FloatArray
    thinking: FloatArray
    direct_tokens: FloatArray
    thinking_tokens: FloatArray
    certainties: Mapping[str, FloatArray]
    expects: tuple[str, ...] = ("one",)
    counted: str = MEASURE_TITLES["acc@0.5"]
    reasoning: tuple[FloatArray, FloatArray] | None = None

    def take(self, rows: IntArray) -> PairedAnswers:
        """Some of the rows."""
        return PairedAnswers(
            self.pictures[rows],
            self.direct[rows],
            self.thinking[rows],
            self.direct_tokens[rows],
            self.thinking_tokens[rows],
            {name: values[rows] for name, values in self.certainties.items()},
            self.expects,
            self.counted,
            None if self.reasoning is None else (self.reasoning[0][rows], self.reasoning[1][rows]),
        )

    def tokens(self, measure: str, taken: FloatArray) -> FloatArray:
        """Tokens of each question where some direct answers are taken, `taken` (N,) being 1 there and 0 elsewhere.

        By the phrase nothing is asked twice; else the direct answer is asked for everywhere.
        """
        return _spent(measure, taken, self.direct_tokens, self.thinking_tokens)

    def reasoning_tokens(self, measure: str, taken: FloatArray) -> FloatArray | None:
        """Those of them that are reasoning; None where they are not counted."""
        return None if self.reasoning is None else _spent(measure, taken, *self.reasoning)


def _spent(measure: str, taken: FloatArray, direct: FloatArray, thinking: FloatArray) -> FloatArray:
    if measure == "phrase":
        return np.where(taken > 0, direct, thinking)
    return np.asarray(direct + (1 - taken) * thinking)


def read_pairs(
    direct: str | os.PathLike[str], thinking: str | os.PathLike[str]
) -> tuple[PairedAnswers, Header, Header]:
    """Read two runs of `egm eval` about the same questions, with think=never and think=always.

    Args:
        direct: Run folder of the direct answers, or its journal.
        thinking: That of the answers after thinking.

    Returns:
        The pairs, and both headers.

    Raises:
        DataError: If they differ in more than whether was thought, a question has one answer only or an error, or
            tokens are not counted.
    """
    (header, records), (other, others) = read_whole_run(direct), read_whole_run(thinking)
    for place, found, wanted in ((direct, header, "never"), (thinking, other, "always")):
        if found.settings.get("think", "always") != wanted:
            raise DataError(f"{os.fspath(place)!r} was not asked with --think {wanted}: give the run that was")
    differences = [text for text in header.differences(other) if not text.startswith(_MAY_DIFFER)]
    if differences:
        raise DataError(
            f"{os.fspath(direct)!r} and {os.fspath(thinking)!r} differ in more than whether was thought: "
            f"{'; '.join(differences)}: give two runs of the same questions, asked alike"
        )
    whole = sum(facts["n"] for facts in header.datasets.values())
    by_key = {record.key: record for record in others}
    if len(records) != whole or len(by_key) != whole or any(record.key not in by_key for record in records):
        raise DataError(
            f"of {whole:,} questions {len(records):,} have a direct answer and {len(by_key):,} one after thinking: go "
            "on with the runs until both are complete"
        )
    return _pairs(records, [by_key[record.key] for record in records]), header, other


def _pairs(direct: Sequence[Record], thinking: Sequence[Record]) -> PairedAnswers:
    if failed := sum(record.failure == ERROR for record in (*direct, *thinking)):
        raise DataError(f"{failed:,} answers are errors of the engine: ask them again with --retry-errors")
    if any(record.completion_tokens is None for record in (*direct, *thinking)):
        raise DataError("the engine counts no tokens, so nothing can be said of what thinking costs")
    certainties = {
        name: np.array([(record.certainties or {}).get(name, -np.inf) for record in direct]) for name in MEASURES
    }
    before, after = _reasoning_of(direct), _reasoning_of(thinking)
    return PairedAnswers(
        pictures=stats.picture_numbers([record.image for record in direct]),
        direct=np.array([float(record.hit()) for record in direct]),
        thinking=np.array([float(record.hit()) for record in thinking]),
        direct_tokens=np.array([float(record.completion_tokens or 0) for record in direct]),
        thinking_tokens=np.array([float(record.completion_tokens or 0) for record in thinking]),
        certainties={name: values for name, values in certainties.items() if np.isfinite(values).any()},
        expects=tuple(sorted({record.expect for record in direct})),
        counted=measure_title(record.split for record in direct),
        reasoning=None if before is None or after is None else (before, after),
    )


def _reasoning_of(records: Sequence[Record]) -> FloatArray | None:
    counts = [record.reasoning_tokens for record in records]
    return None if None in counts else np.array(counts, dtype=np.float64)
