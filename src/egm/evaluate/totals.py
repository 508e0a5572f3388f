"""What records say, in numbers: accuracy, failures by kind, tokens, latency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from egm.journal import ERROR, Record
from egm.set_scores import score_record
from egm.types import mean_if_any


def totals(records: Sequence[Record]) -> dict[str, Any]:
    """Return the numbers of some records, JSON-ready.

    Returns:
        `n`; `accuracy` (what counts in each split, see `Record.hit`) and `mean_iou`, both with failures as 0;
        `failures` and, apart, `errors` counted by kind; `truncated`, how many answers the token limit cut; `tokens`,
        means an answer; `latency`, see `latency_totals`; `thinking`, see `thinking_totals`, where it was decided
        whether to think; and `sets`, see `set_totals`, where not exactly one box is expected.
    """
    answered = [record for record in records if record.failure != ERROR]
    kinds = Counter(record.failure for record in answered if record.failure is not None)
    errors = Counter((record.error or "").partition(":")[0] for record in records if record.failure == ERROR)
    return {
        "n": len(records),
        "accuracy": mean_if_any([float(record.hit()) for record in records]),
        "mean_iou": mean_if_any([record.iou for record in records]),
        "failures": dict(sorted(kinds.items())),
        "errors": dict(sorted(errors.items())),
        "truncated": sum(record.finish_reason == "length" for record in answered),
        "tokens": {
            "prompt": mean_if_any([r.prompt_tokens for r in answered if r.prompt_tokens is not None]),
            "reasoning": mean_if_any([r.reasoning_tokens for r in answered if r.reasoning_tokens is not None]),
            "answer": mean_if_any([r.answer_tokens for r in answered if r.answer_tokens is not None]),
            "completion": mean_if_any([r.completion_tokens for r in answered if r.completion_tokens is not None]),
        },
        "latency": latency_totals(records),
        **(
            {"thinking": thinking_totals(decided)} if (decided := [r for r in records if r.thought is not None]) else {}
        ),
        **({"sets": set_totals(several)} if (several := [r for r in records if r.expect != "one"]) else {}),
    }


def thinking_totals(records: Sequence[Record]) -> dict[str, Any]:
    """Return how often was thought, of records of which that was decided, JSON-ready.

    Returns:
        `n`; `thought`, the share that was; `direct_tokens`, tokens an answer that went into direct answers which were
        not taken, of `n`, which the answers' tokens hold.
    """
    thought = [record for record in records if record.thought]
    return {
        "n": len(records),
        "thought": len(thought) / len(records),
        "direct_tokens": sum(record.direct_tokens or 0 for record in records) / len(records),
    }


def set_totals(records: Sequence[Record]) -> dict[str, Any]:
    """Return the numbers of records that do not expect exactly one box, JSON-ready; `egm.set_scores` defines them.

    Returns:
        `n`; `none`, how many of them nothing matches; `f1`, the mean at IoU 0.5; `n_acc` and `false_alarms` of those
        that nothing matches, and `false_rejections` of the others, or None where there are none of these.
    """
    empty = [record for record in records if not record.true_boxes]
    others = [record for record in records if record.true_boxes]
    return {
        "n": len(records),
        "none": len(empty),
        "f1": mean_if_any([score_record(record).f1() for record in records]),
        "n_acc": mean_if_any([float(record.is_none) for record in empty]),
        "false_alarms": mean_if_any([float(bool(record.answered)) for record in empty]),
        "false_rejections": mean_if_any([float(record.is_none) for record in others]),
    }


def latency_totals(records: Iterable[Record]) -> dict[str, Any]:
    """Return latencies of the answers, in seconds; errors are left out.

    Returns:
        `seconds` (from sending to the last token) of all, and of `cold` and `warm` images apart; `first_token`, where
        streamed; `queue`, the wait before sending: each with `n`, `mean`, `p50`, `p90` and `p99`, or None if there are
        none. `tokens_per_second`: tokens generated in a second of one request, all requests taken together.
    """
    answered = [record for record in records if record.failure != ERROR]
    counted = [(r.completion_tokens, r.seconds) for r in answered if r.completion_tokens is not None]
    tokens, seconds = (sum(part) for part in zip(*counted, strict=True)) if counted else (0, 0.0)
    return {
        "seconds": _spread([record.seconds for record in answered]),
        "cold": _spread([record.seconds for record in answered if record.cold]),
        "warm": _spread([record.seconds for record in answered if not record.cold]),
        "first_token": _spread([r.first_token_seconds for r in answered if r.first_token_seconds is not None]),
        "queue": _spread([record.queue_seconds for record in answered]),
        "tokens_per_second": tokens / seconds if tokens and seconds > 0 else None,
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    import numpy as np

    if not values:
        return None
    p50, p90, p99 = (float(value) for value in np.percentile(values, [50, 90, 99]))
    return {"n": len(values), "mean": sum(values) / len(values), "p50": p50, "p90": p90, "p99": p99}
