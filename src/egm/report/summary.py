"""What a list of records says: accuracies and IoU with intervals, by split and by kind of phrase, and the misses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from egm import stats
from egm.boxes import Box
from egm.datasets.benchmarks import MEASURE_TITLES, measures_of
from egm.errors import DataError
from egm.failures import Miss, Neighbour, PhraseFacts, classify_miss, classify_set_miss, phrase_facts
from egm.journal import Record
from egm.report.set_summary import SetSummary, summarise_sets
from egm.stats import Estimate, FloatArray, IntArray

METRICS: Final[dict[str, str]] = {
    "acc@0.5": "Acc@0.5",
    "acc>0.5": "Acc, IoU > 0.5",
    "acc@0.75": "Acc@0.75",
    "acc@0.9": "Acc@0.9",
    "macc@0.5:0.95": "mAcc@0.5:0.95",
    "mean_iou": "mean IoU",
    "centre": MEASURE_TITLES["centre"],
}
"""Key and title of each figure."""
COUNTED: Final = "counted"
"""Key of the figure of records of which not all count alike: of each what counts in its split (`Record.hit`)."""

_SIZES = ("small", "medium", "large")
_SHARES = ("< 5 %", "5-10 %", "10-20 %", "20-40 %", "> 40 %")
Estimates = dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class Complexity:
    """How misses and complex phrases go together; `egm.failures` says what is complex.

    Attributes:
        base_rate: Share of complex phrases among all rows.
        among_misses: The same among misses, the figure that the EGM card gives as 62.8 %; None without misses.
        accuracy_complex: Share of hits on complex phrases; None if there are none.
        accuracy_simple: Share of hits on the others; None if there are none.
    """

    base_rate: Estimate
    among_misses: Estimate | None
    accuracy_complex: Estimate | None
    accuracy_simple: Estimate | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that is reported of one list of records; intervals are 95 %. A hit is what counts in its split.

    Attributes:
        rows: How many records, failures included.
        images: How many pictures; 0 if they are unknown, and then intervals take rows for independent.
        pooled: Each of `METRICS` over all rows; and `COUNTED`, where not all splits count alike.
        average: The same as the mean over splits, as the model card averages; None with fewer than two splits.
        bootstrap: What counts, and mean IoU, of `pooled` with intervals by resampling pictures.
        splits: The same as `pooled`, by split.
        groups: Share of hits by `words`, `relations`, `complexity` and `size`, and by `share` (of the picture),
            `category`, `kind`, `distractors` and `negation` where known.
        misses: How many misses of each kind of `egm.failures.Miss`.
        no_box: How many rows had no box, by reason.
        complexity: How misses and complex phrases go together.
        sets: Figures of the records that may have no box or several, if there are any.
    """

    rows: int
    images: int
    pooled: Estimates
    average: Estimates | None
    bootstrap: Estimates
    splits: dict[str, Estimates]
    groups: dict[str, Estimates]
    misses: dict[str, int]
    no_box: dict[str, int]
    complexity: Complexity
    sets: SetSummary | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        row = asdict(self)
        return row if self.sets is not None else {key: value for key, value in row.items() if key != "sets"}


def interval_summary(
    records: Sequence[Record],
    *,
    neighbours: Mapping[str, Sequence[Neighbour]] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Summary:
    """Summarise records.

    Args:
        records: One a sample; one without a box counts as IoU 0.
        neighbours: Annotated objects by the records' `image`, to tell another object from no object. For pictures that
            are not in it, those that the records themselves ask for.
        draws: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        DataError: If there are no records.
    """
    if not records:
        raise DataError("there are no records to summarise: check that the file holds answers")
    columns, hits = values_of(records), hits_of(records)
    clusters = cluster_numbers(records)
    facts = [phrase_facts(record.phrase) for record in records]
    names = sorted({record.split for record in records})
    counted: list[str] = [*measures_of(names)]
    if len(counted) > 1:
        columns[COUNTED] = hits
        counted.append(COUNTED)
    strata = np.array([names.index(record.split) for record in records], dtype=np.intp)

    def estimates(rows: IntArray | slice, groups: IntArray | None = None) -> Estimates:
        return {key: stats.cluster_mean(values[rows], clusters[rows], strata=groups) for key, values in columns.items()}

    kinds = misses_of(records, neighbours)
    return Summary(
        rows=len(records),
        images=len({record.image for record in records}) if knows_images(records) else 0,
        pooled=estimates(slice(None)),
        average=estimates(slice(None), strata) if len(names) > 1 else None,
        bootstrap={
            key: stats.cluster_bootstrap(columns[key], clusters, draws=draws, seed=seed)
            for key in (*counted, "mean_iou")
        },
        splits={name: estimates(np.flatnonzero(strata == number)) for number, name in enumerate(names)},
        groups=_groups(records, facts, hits, clusters),
        misses={str(kind): count for kind in Miss if (count := kinds.count(kind))},
        no_box=dict(Counter(r.failure or "no_box" for r in records if r.box is None and not r.is_none).most_common()),
        complexity=_complexity(facts, hits, clusters),
        sets=summarise_sets(records, clusters),
    )


def values_of(records: Sequence[Record]) -> dict[str, FloatArray]:
    """One column for each of `METRICS`, a value in [0, 1] for each record."""
    ious = np.array([record.iou if record.box is not None or record.is_none else 0.0 for record in records])
    return {
        "acc@0.5": stats.hits(ious),
        "acc>0.5": stats.hits(ious, strict=True),
        "acc@0.75": stats.hits(ious, 0.75),
        "acc@0.9": stats.hits(ious, 0.9),
        "macc@0.5:0.95": stats.mean_hits(ious),
        "mean_iou": ious,
        "centre": np.array([float(record.centre_hit()) for record in records]),
    }


def hits_of(records: Sequence[Record]) -> FloatArray:
    """1 for each record that is right by what counts in its split, else 0."""
    return np.array([float(record.hit()) for record in records])


def knows_images(records: Sequence[Record]) -> bool:
    """Whether every record says which picture it is about."""
    return all(record.image for record in records)


def cluster_numbers(records: Sequence[Record]) -> IntArray:
    """Number the pictures; a record without one stands for itself."""
    return stats.picture_numbers([record.image for record in records])


def misses_of(
    records: Sequence[Record], neighbours: Mapping[str, Sequence[Neighbour]] | None = None
) -> list[Miss | None]:
    """Name the kind of each miss, None for hits; arguments as in `interval_summary`."""
    objects: dict[str, Sequence[Neighbour]] = {**neighbours_of(records), **(neighbours or {})}
    return [_miss_of(record, objects.get(record.image, ()) if record.image else ()) for record in records]


def _miss_of(record: Record, others: Sequence[Neighbour]) -> Miss | None:
    if record.hit():
        return None
    answered, true = ([Box(*corners) for corners in boxes] for boxes in (record.answered, record.true_boxes))
    if (answered or record.is_none) and not len(answered) == len(true) == 1:
        return classify_set_miss(answered, true)
    return classify_miss(
        answered[0] if answered else None,
        true[0] if true else None,
        phrase=record.phrase,
        size=record.size,
        category=category_of(record.meta),
        others=others,
    )


def neighbours_of(records: Sequence[Record]) -> dict[str, list[Neighbour]]:
    """The objects that the records ask for, by picture, each once."""
    by_image: dict[str, dict[tuple[float, ...], Neighbour]] = {}
    for record in records:
        if record.image:
            objects = by_image.setdefault(record.image, {})
            for truth in record.true_boxes:
                objects.setdefault(truth, Neighbour(Box(*truth), category_of(record.meta)))
    return {image: list(objects.values()) for image, objects in by_image.items()}


def category_of(meta: Mapping[str, Any]) -> str | None:
    """The category of an object, where its dataset knows it."""
    value = meta.get("category", meta.get("category_id"))
    return None if value is None else str(value)


def _complexity(facts: Sequence[PhraseFacts], hits: FloatArray, clusters: IntArray) -> Complexity:
    complex_ = np.array([fact.is_complex for fact in facts])

    def mean(values: FloatArray, rows: Any) -> Estimate | None:
        return stats.cluster_mean(values[rows], clusters[rows]) if rows.any() else None

    shares = complex_.astype(np.float64)
    return Complexity(
        base_rate=stats.cluster_mean(shares, clusters),
        among_misses=mean(shares, hits == 0),
        accuracy_complex=mean(hits, complex_),
        accuracy_simple=mean(hits, ~complex_),
    )


def _groups(
    records: Sequence[Record], facts: Sequence[PhraseFacts], hits: FloatArray, clusters: IntArray
) -> dict[str, Estimates]:
    labels: dict[str, list[str | None]] = {
        "words": [_bin(fact.words, (1, 2, 3, 5, 8)) for fact in facts],
        "relations": [_bin(fact.relations, (0, 1, 2)) for fact in facts],
        "complexity": [_bin(fact.count, (0, 1, 2, 3)) for fact in facts],
        "size": [None if record.truth is None else _size(record.truth) for record in records],
        "share": [_share(record) for record in records],
        "category": [category_of(record.meta) for record in records],
        "kind": [None if record.meta.get("kind") is None else str(record.meta["kind"]) for record in records],
        "distractors": [_distractors(record.meta) for record in records],
        "negation": [_yes_or_no(record.meta.get("use_negation")) for record in records],
    }
    # By name otherwise: bins of counts begin with one digit.
    order: dict[str, Callable[[str], Any]] = {"size": _SIZES.index, "share": _SHARES.index}
    groups: dict[str, Estimates] = {}
    for name, column in labels.items():
        rows: dict[str, list[int]] = {}
        for row, label in enumerate(column):
            if label is not None:
                rows.setdefault(label, []).append(row)
        if rows:
            groups[name] = {
                label: stats.cluster_mean(hits[rows[label]], clusters[rows[label]])
                for label in sorted(rows, key=order.get(name, str))
            }
    return groups


def _bin(count: int, ends: Sequence[int]) -> str:
    """Name the bin of a count; each end closes a bin, and the last bin is open."""
    start = 0 if ends[0] == 0 else 1
    for end in ends:
        if count <= end:
            return str(end) if end == start else f"{start}-{end}"
        start = end + 1
    return f"{start}+"


def _distractors(meta: Mapping[str, Any]) -> str | None:
    """How many things could be taken for the object, where a dataset says it, in Ref-Adv's bins."""
    count = meta.get("distractors")
    return _bin(count, (3, 6)) if type(count) is int else None


def _yes_or_no(said: Any) -> str | None:
    """What a fact says; None where it is anything else, which a file from elsewhere may hold."""
    return ("yes" if said else "no") if isinstance(said, bool | int) and said in (0, 1) else None


def _size(truth: tuple[float, float, float, float]) -> str:
    """COCO's sizes by the area of the true box: below 32 x 32 pixels, below 96 x 96, or more."""
    area = Box(*truth).area
    return "small" if area < 32**2 else "medium" if area < 96**2 else "large"


def _share(record: Record) -> str | None:
    """How much of the picture the true box covers, where the size is known: RefCOCO's objects are nearly all large."""
    if record.size is None or record.truth is None:
        return None
    share = Box(*record.truth).area / (record.size[0] * record.size[1])
    return _SHARES[int(np.searchsorted((0.05, 0.1, 0.2, 0.4), share, side="right"))]
