"""Datasets of EGM: every format that users have, read into Samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egm.lazy import lazy_names

if TYPE_CHECKING:
    from egm.datasets.check import Finding, check_dataset
    from egm.datasets.convert import row_of, write_dataset
    from egm.datasets.dataset import Dataset
    from egm.datasets.flip import Flipped, flip_phrase, flip_sample
    from egm.datasets.jsonl import JsonlDataset
    from egm.datasets.read_rows import Malformed
    from egm.datasets.refcoco import EVALUATION, SIZES
    from egm.datasets.registry import dataset_names, open_dataset, split_size
    from egm.datasets.sizes import with_sizes

__all__ = [
    "EVALUATION",
    "SIZES",
    "Dataset",
    "Finding",
    "Flipped",
    "JsonlDataset",
    "Malformed",
    "check_dataset",
    "dataset_names",
    "flip_phrase",
    "flip_sample",
    "open_dataset",
    "row_of",
    "split_size",
    "with_sizes",
    "write_dataset",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "dataset": ("Dataset",),
        "read_rows": ("Malformed",),
        "check": ("Finding", "check_dataset"),
        "convert": ("row_of", "write_dataset"),
        "flip": ("Flipped", "flip_phrase", "flip_sample"),
        "jsonl": ("JsonlDataset",),
        "refcoco": ("EVALUATION", "SIZES"),
        "registry": ("dataset_names", "open_dataset", "split_size"),
        "sizes": ("with_sizes",),
    },
)
