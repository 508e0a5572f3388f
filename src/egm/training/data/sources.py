"""From the sources that a recipe names to rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from egm.datasets import open_dataset
from egm.datasets.indexed import open_indexed
from egm.datasets.synthetic import SPLITS, TRAINING, Style
from egm.errors import DataError
from egm.training.data.rows import DatasetRows, MixedRows, Rows, SynthRefRows
from egm.training.recipe import SourceSection

SYNTHETIC = {f"synthref/{name}": name for name in TRAINING}
"""SynthRef's training splits by their names in a recipe: what is made while training, in no order."""
_FROZEN = frozenset(f"synthref/{name}" for name in SPLITS) - SYNTHETIC.keys()


def open_rows(
    train: str | Sequence[SourceSection],
    *,
    seed: int,
    images: Path | None = None,
    scenes: int = 1_000_000,
    phrases: int = 4,
    rationale: Style = "candidates",
    first: int | None = None,
    held_out: bool = False,
) -> Rows:
    """Open what is trained on, or what is held out from it.

    Of .jsonl and .parquet files only an index is made: see `egm.datasets.indexed`. Other files, and splits by name, are
    read whole, once, before the data loader's processes are started.

    Args:
        train: A split or file, or several sources that are mixed by weight.
        seed: Which draw of a training split of SynthRef.
        images: Folder of the images; by default that of the file.
        scenes: How many scenes of a training split of SynthRef.
        phrases: Samples a scene of it, at most.
        rationale: Style of its rationales.
        first: How many samples will be looked at, of what is read whole.
        held_out: Open what is measured and not trained on, which may be a frozen split of SynthRef.

    Raises:
        DataError: If there is no such dataset, it is of no known format, a source cannot be asked as it says, or a
            frozen split of SynthRef would be trained on.
    """
    sources = sources_of(train)
    if not held_out:
        refuse_frozen(sources)
    samples_per_row = max(phrases if source.place in SYNTHETIC else 1 for source in sources)

    def rows_of(source: SourceSection) -> Rows:
        if source.place in SYNTHETIC:
            return SynthRefRows(scenes, seed, rationale, phrases, SYNTHETIC[source.place], source.expect)
        folder, path = source.images or images, Path(source.place)
        indexed = open_indexed(path, images=folder) if path.is_file() else None
        dataset = open_dataset(source.place, images=folder, first=first) if indexed is None else indexed
        return DatasetRows(dataset, samples_per_row, source.expect)

    parts = [rows_of(source) for source in sources]
    return parts[0] if len(parts) == 1 else MixedRows(parts, [source.weight for source in sources])


def sources_of(train: str | Sequence[SourceSection]) -> Sequence[SourceSection]:
    """Return the sources of a recipe's `data.train`, of which a string names one."""
    return (SourceSection(name=train),) if isinstance(train, str) else train


def refuse_frozen(sources: Sequence[SourceSection]) -> None:
    """Refuse to train on the splits of SynthRef that gates are fitted on and models measured by.

    Raises:
        DataError: If one of the sources is such a split.
    """
    for source in sources:
        if source.place in _FROZEN and not Path(source.place).exists():
            raise DataError(
                f"data.train has {source.place}, which is frozen for measuring and never trained on: take "
                f"{', '.join(SYNTHETIC)}"
            )
