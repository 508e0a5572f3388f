"""Suites: the splits that a model's row in a table takes, whole, or as far as a fixed choice of pictures goes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from egm.collector import paused_collector
from egm.datasets import EVALUATION, Dataset, open_dataset
from egm.datasets.benchmark_files import find_benchmark
from egm.datasets.benchmarks import benchmark_of
from egm.datasets.dataset import Choice, PartOfDataset
from egm.datasets.inputs import data_folder
from egm.errors import DataError, nearest
from egm.types import Sample

HARD: Final = (
    "ref-adv-s/test",
    "ref-l4/all",
    "refcoco-m/val",
    "groundingme/test",
    "grefcoco/testA",
    "grefcoco/testB",
    "finecops-ref/positive",
    "finecops-ref/negative-text",
    "finecops-ref/negative-image",
    "hc-refloco/test",
    "screenspot-pro/test",
)
"""The benchmarks on which models are far from done: long and adversarial phrases, none, many, screenshots."""
SUITES: Final[Mapping[str, tuple[str, ...]]] = {
    "refcoco": EVALUATION,
    "hard": HARD,
    "all": (*EVALUATION, *HARD),
    "synthref": ("synthref/val", "synthref/test-simple", "synthref/test-complex", "synthref/test-amodal"),
}
"""Splits by name of the suite, in the order of the table."""
_SEED = 0


@paused_collector()
def open_suite(
    name: str,
    *,
    pictures: int | None = None,
    images: str | Path | None = None,
    data: str | Path | None = None,
    allow_partial: bool = False,
) -> dict[str, Dataset]:
    """Open every split of a suite.

    Args:
        name: One of `SUITES`.
        pictures: Only the questions about so many of the suite's pictures, see `choose_pictures`; None takes all.
        images: As of `open_dataset`, and so are the others.
        data: See there.
        allow_partial: See there.

    Returns:
        Datasets by split, in the suite's order.

    Raises:
        DataError: If there is no such suite, a split cannot be opened, or the choice has no question of one.
    """
    if name not in SUITES:
        raise DataError(f"there is no suite {name!r}: {nearest(name, tuple(SUITES))}")
    _refuse_missing(name, data_folder(data))
    splits = {
        split: open_dataset(split, images=images, data=data, allow_partial=allow_partial) for split in SUITES[name]
    }
    return splits if pictures is None else choose_pictures(splits, pictures)


def _refuse_missing(name: str, data: Path) -> None:
    """Refuse a suite of benchmarks of which some are not there, all of them in one line."""
    missing, last = [], None
    for split in SUITES[name]:
        try:
            if benchmark_of(split) is not None:
                find_benchmark(split, data)
        except DataError as error:
            missing.append(split)
            last = error
    if len(missing) > 1:
        raise DataError(
            f"the suite {name!r} lacks {', '.join(missing)} in {str(data)!r}: egm data benchmarks says where they are "
            "had; or name those that are there"
        )
    if last is not None:
        raise last


def choose_pictures(splits: Mapping[str, Dataset], count: int) -> dict[str, Dataset]:
    """Keep the questions about some pictures, and of these all, in whichever splits they stand.

    Pictures are taken in the order of a hash of seed and name: so the choice is the same on every machine and for every
    model, a smaller one is a part of a larger one, and how the files are ordered makes no difference.

    Args:
        splits: Datasets by split.
        count: How many pictures, of all splits together.

    Raises:
        DataError: If there are fewer pictures, or a split has no question left.
    """
    names = {split: [_picture(sample, data) for sample in data.annotations()] for split, data in splits.items()}
    known = {name for those in names.values() for name in those}
    if not 1 <= count <= len(known):
        raise DataError(f"{count} pictures cannot be chosen of {len(known):,}: ask for 1 to {len(known):,} (--limit)")
    chosen = set(sorted(known, key=_rank)[:count])
    choice, parts = Choice(count, len(known), _SEED), dict[str, Dataset]()
    for split, data in splits.items():
        numbers = [number for number, picture in enumerate(names[split]) if picture in chosen]
        if not numbers:
            raise DataError(f"{choice} hold no question of {split}: choose more (--limit)")
        parts[split] = PartOfDataset(data, numbers, choice)
    return parts


def _picture(sample: Sample, data: Dataset) -> str:
    """Name a picture as every machine does: COCO's files have names of their own, made ones are named after scenes."""
    return Path(str(sample.image)).name if data.names_files else str(sample.image)


def _rank(picture: str) -> tuple[bytes, str]:
    return hashlib.sha256(f"{_SEED}/{picture}".encode()).digest(), picture


def choices_of(splits: Mapping[str, object]) -> dict[str, Choice]:
    """Return what was chosen of each split, where not all was taken."""
    return {split: data.choice for split, data in splits.items() if isinstance(data, Dataset) and data.choice}


def mean_accuracy(accuracies: Sequence[float | None]) -> float | None:
    """Average over splits as the model card does: each counts the same; None where one has no answers."""
    known = [value for value in accuracies if value is not None]
    return sum(known) / len(known) if known and len(known) == len(accuracies) else None
