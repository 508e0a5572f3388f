"""What answers cost in tokens, floating-point operations and bytes moved: from records and a model's shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from egm.journal import ERROR, Header, Record
from egm.models.costs import Cost, CostModel, cost_model
from egm.stats import FloatArray

CURRENCIES: Final = {"tokens": "tokens", "operations": "GFLOP", "bytes": "GB"}
"""Key and unit of what an answer takes beside time."""
UNITS: Final = {"tokens": 1.0, "operations": 1e9, "bytes": 1e9}
"""How many of each make its unit."""
_IN_PROCESS: Final = ("NumpyBackend", "TransformersBackend")
"""Backends that cut reasoning off in one request."""


@dataclass(frozen=True, slots=True)
class AnswerCosts:
    """Costs of answers, each of shape (N,), NaN where they cannot be told.

    Attributes:
        tokens: Tokens generated.
        operations: Floating-point operations.
        bytes: Bytes read from memory, by one answer that is computed alone.
    """

    tokens: FloatArray
    operations: FloatArray
    bytes: FloatArray

    def of(self, currency: str) -> FloatArray:
        """The costs in one of `CURRENCIES`."""
        values: FloatArray = getattr(self, currency)
        return values

    def mean(self, currency: str) -> float | None:
        """Mean of those that are told; None where none is."""
        known = self.of(currency)[np.isfinite(self.of(currency))]
        return float(known.mean()) if len(known) else None


def run_costs(header: Header, records: Sequence[Record]) -> tuple[AnswerCosts, str | None]:
    """Tell what each answer of a run took, as `answer_costs`, and why nothing but tokens is told, where that is so.

    A thinking budget that ran out on a server took two requests, of which the journal holds the sums: what either read
    and wrote, on which operations and bytes depend, is not known.

    Args:
        header: What the run is about.
        records: Its answers.
    """
    model = cost_model(header.model)
    if model is None or header.settings.get("thinking_budget") is None or header.engine.get("backend") in _IN_PROCESS:
        return answer_costs(records, model), None
    why = "a server cuts reasoning off at its budget by a second request, and how tokens fall to the two is not known"
    return answer_costs(records, None), why


def answer_costs(records: Sequence[Record], model: CostModel | None) -> AnswerCosts:
    """Tell what each answer of a run took, as if it had been computed alone.

    Of several votes nothing is told but tokens, as engines differ in what they share among them. A direct answer that
    was not taken counts with the one that was.

    Args:
        records: The answers.
        model: Their model; None where its shape is not known, and then only tokens are told.
    """
    tokens = [np.nan if r.completion_tokens is None else float(r.completion_tokens) for r in records]
    costs = [None if model is None else _cost(record, model) for record in records]
    unknown = Cost(np.nan, np.nan)
    told = [unknown if cost is None else cost for cost in costs]
    return AnswerCosts(
        np.array(tokens), np.array([cost.operations for cost in told]), np.array([cost.bytes for cost in told])
    )


def _cost(record: Record, model: CostModel) -> Cost | None:
    prompt, written, size = record.prompt_tokens, record.completion_tokens, record.size
    if prompt is None or written is None or size is None or record.votes > 1 or record.failure == ERROR:
        return None
    if record.direct_tokens is None:
        return model.answer(size, prompt=prompt, written=written)
    direct = model.answer(size, prompt=prompt // 2, written=record.direct_tokens)
    return direct + model.answer(size, prompt=prompt - prompt // 2, written=written - record.direct_tokens)
