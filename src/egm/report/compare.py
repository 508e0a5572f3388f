"""Two lists of records on the same items: who got what the other missed, and whether that can be chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np

from egm import stats
from egm.errors import DataError
from egm.failures import Miss, Neighbour
from egm.journal import Record
from egm.report.summary import cluster_numbers, hits_of, knows_images, misses_of, neighbours_of, values_of
from egm.stats import FloatArray, McNemar, PairedDifference


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second against the first, on the items that both answered; differences are second minus first.

    Attributes:
        rows: Items compared.
        only_in_a: Items of the first that the second lacks; they are left out.
        only_in_b: The other way round.
        images: How many pictures; 0 if they are unknown, and then intervals take rows for independent.
        mcnemar: Of hits, by what counts in each split (`Record.hit`).
        accuracy: Difference in the share of these, by picture.
        mean_iou: Difference in mean IoU, by picture.
        splits: McNemar's test for each split.
        missed_by_a: Of the items that only the second got, how the first missed them: counts by `egm.failures.Miss`.
        missed_by_b: The other way round.
    """

    rows: int
    only_in_a: int
    only_in_b: int
    images: int
    mcnemar: McNemar
    accuracy: PairedDifference
    mean_iou: PairedDifference
    splits: dict[str, McNemar]
    missed_by_a: dict[str, int]
    missed_by_b: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return asdict(self)


def compare(
    a: Sequence[Record],
    b: Sequence[Record],
    *,
    neighbours: Mapping[str, Sequence[Neighbour]] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two lists of records item by item; an item is a split and an id.

    Args:
        a: The first.
        b: The second.
        neighbours: As in `egm.report.interval_summary`.
        draws: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        DataError: If no item is in both, or an item has another truth or phrase in the second, or was asked for another
            number of boxes.
    """
    theirs = {(record.split, record.id): record for record in b}
    pairs = [(record, theirs[key]) for record in a if (key := (record.split, record.id)) in theirs]
    if not pairs:
        raise DataError("the two files share no item: compare answers to the same samples")
    for first, second in pairs:
        if first.phrase != second.phrase or not same_truth(first, second):
            raise DataError(
                f"{first.id!r} is {first.phrase!r} at {_place(first)} in the first file and {second.phrase!r} at "
                f"{_place(second)} in the second: they are not about the same dataset"
            )
        if first.expect != second.expect:
            raise DataError(
                f"{first.id!r} was asked with --expect {first.expect} in the first file and with --expect "
                f"{second.expect} in the second: compare answers to the same question"
            )
    left, right = [first for first, _ in pairs], [second for _, second in pairs]
    clusters = cluster_numbers(left)
    mine, other = values_of(left), values_of(right)
    hits = hits_of(left), hits_of(right)
    names = np.array([record.split for record in left])
    return Comparison(
        rows=len(pairs),
        only_in_a=len({(record.split, record.id) for record in a}) - len(pairs),
        only_in_b=len(theirs) - len(pairs),
        images=len({record.image for record in left}) if knows_images(left) else 0,
        mcnemar=stats.mcnemar(*hits),
        accuracy=stats.paired_difference(*hits, clusters, draws=draws, seed=seed),
        mean_iou=stats.paired_difference(mine["mean_iou"], other["mean_iou"], clusters, draws=draws, seed=seed),
        splits={str(name): stats.mcnemar(hits[0][names == name], hits[1][names == name]) for name in np.unique(names)},
        missed_by_a=_misses(left, hits[1], neighbours),
        missed_by_b=_misses(right, hits[0], neighbours),
    )


def same_truth(a: Record, b: Record) -> bool:
    """Whether two records have the same true boxes, but for rounding."""
    mine, theirs = (tuple(chain(*of.true_boxes)) for of in (a, b))
    return len(mine) == len(theirs) and all(
        abs(x - y) <= 0.01 + 1e-5 * abs(y) for x, y in zip(mine, theirs, strict=True)
    )


def _place(record: Record) -> object:
    return record.true_boxes if record.truth is None else record.truth


def _misses(
    records: Sequence[Record], others: FloatArray, neighbours: Mapping[str, Sequence[Neighbour]] | None
) -> dict[str, int]:
    """Count the misses of records, by kind, where another hit."""
    lost = [record for record, hit in zip(records, others, strict=True) if hit]
    kinds = misses_of(lost, {**neighbours_of(records), **(neighbours or {})})
    return {str(miss): count for miss in Miss if (count := kinds.count(miss))}
