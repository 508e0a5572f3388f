"""What records say of questions that nothing or several things may match: set scores, rejection, average precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from egm import stats
from egm.journal import Record
from egm.set_scores import average_precision, score_record
from egm.stats import THRESHOLDS, Estimate, FloatArray, IntArray

SET_METRICS: Final[dict[str, str]] = {
    "f1@0.5": "F1@0.5",
    "f1@0.5:0.95": "mean F1@0.5:0.95",
    "precision@0.5": "precision@0.5",
    "recall@0.5": "recall@0.5",
    "precision@0.5:0.95": "mean precision@0.5:0.95",
    "recall@0.5:0.95": "mean recall@0.5:0.95",
    "acc_one": "Acc@0.5 where there is one box",
    "n_acc": "rejection accuracy (N-acc)",
    "false_alarms": "false alarms",
    "false_rejections": "false rejections",
}
"""Key and title of each figure; `egm.set_scores` defines them."""


@dataclass(frozen=True, slots=True)
class SetSummary:
    """Figures of the records that may have no box or several; intervals are 95 %, clustered by picture.

    Attributes:
        rows: How many such records.
        none: How many of them nothing matches.
        several: How many of them several things match.
        estimates: Each of `SET_METRICS` that has rows.
        average_precision: COCO's AP at IoU 0.5, and as the mean over 0.5 to 0.95; None where a box has no confidence,
            as with one vote and an engine that tells no probabilities, or no record has a true box.
    """

    rows: int
    none: int
    several: int
    estimates: dict[str, Estimate]
    average_precision: tuple[float, float] | None


def summarise_sets(records: Sequence[Record], clusters: IntArray) -> SetSummary | None:
    """Summarise the records that do not expect one box; None if all do.

    Args:
        records: One a sample.
        clusters: The number of each one's picture, shape (N,).
    """
    rows = np.array([number for number, record in enumerate(records) if record.expect != "one"], dtype=np.intp)
    if not len(rows):
        return None
    kept = [records[row] for row in rows]
    own = clusters[rows]
    empty = np.array([not record.true_boxes for record in kept])
    rejected = np.array([float(record.is_none) for record in kept])
    single = np.array([len(record.true_boxes) == 1 for record in kept])
    hits = stats.hits([record.iou for record in kept])
    alarmed = np.array([float(bool(record.answered)) for record in kept])
    estimates = {
        **{key: stats.cluster_mean(values, own) for key, values in _columns(kept).items()},
        **_mean_of("acc_one", hits, single, own),
        **_mean_of("n_acc", rejected, empty, own),
        **_mean_of("false_alarms", alarmed, empty, own),
        **_mean_of("false_rejections", rejected, ~empty, own),
    }
    several = sum(len(record.true_boxes) > 1 for record in kept)
    return SetSummary(len(kept), int(empty.sum()), several, estimates, _average_precision(kept))


def _columns(records: Sequence[Record]) -> dict[str, FloatArray]:
    scores = [score_record(record) for record in records]
    return {
        "f1@0.5": np.array([score.f1() for score in scores]),
        "f1@0.5:0.95": np.array([score.mean_f1() for score in scores]),
        "precision@0.5": np.array([score.precision() for score in scores]),
        "recall@0.5": np.array([score.recall() for score in scores]),
        "precision@0.5:0.95": np.array([score.mean_precision() for score in scores]),
        "recall@0.5:0.95": np.array([score.mean_recall() for score in scores]),
    }


def _mean_of(key: str, values: FloatArray, rows: FloatArray, clusters: IntArray) -> dict[str, Estimate]:
    return {key: stats.cluster_mean(values[rows], clusters[rows])} if rows.any() else {}


def _average_precision(records: Sequence[Record]) -> tuple[float, float] | None:
    if any(record.confidences is None for record in records if record.answered):
        return None
    levels = average_precision(
        [record.answered for record in records],
        [record.confidences or () for record in records],
        [record.true_boxes for record in records],
    )
    return None if levels is None else (levels[THRESHOLDS.index(0.5)], sum(levels) / len(levels))
