"""From the data section of a recipe to rows."""

from __future__ import annotations

from pathlib import Path

from egm.datasets import open_dataset
from egm.datasets.indexed import open_indexed
from egm.datasets.synthetic import TRAINING
from egm.training.data.rows import DatasetRows, MixedRows, Rows, SynthRefRows
from egm.training.recipe import DataSection, SourceSection

SYNTHETIC = {f"synthref/{name}": name for name in TRAINING}
"""SynthRef's training splits by their names in a recipe: what is made while training, in no order."""


def open_rows(section: DataSection, seed: int) -> Rows:
    """Open what a recipe trains on.

    Of .jsonl and .parquet files only an index is made: see `egm.datasets.indexed`. Other files, and splits by name, are
    read whole, once, before the data loader's processes are started.

    Raises:
        DataError: If there is no such dataset, or it is of no known format.
    """
    sources = section.sources
    per_row = max(section.phrases if source.place in SYNTHETIC else 1 for source in sources)
    parts = [_open(source, section, seed, per_row) for source in sources]
    return parts[0] if len(parts) == 1 else MixedRows(parts, [source.weight for source in sources])


def _open(source: SourceSection, section: DataSection, seed: int, per_row: int) -> Rows:
    if source.place in SYNTHETIC:
        return SynthRefRows(section.scenes, seed, section.rationale, section.phrases, SYNTHETIC[source.place])
    images, path = source.images or section.images, Path(source.place)
    indexed = open_indexed(path, images=images) if path.is_file() else None
    return DatasetRows(open_dataset(source.place, images=images) if indexed is None else indexed, per_row)
