"""Datasets of EGM: every format that users have, read into Samples."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from egm.datasets.check import Finding, check_dataset
    from egm.datasets.convert import row_of, write_dataset
    from egm.datasets.flip import Flipped, flip_phrase, flip_sample
    from egm.datasets.jsonl import JsonlDataset
    from egm.datasets.refcoco import EVALUATION, SIZES
    from egm.datasets.registry import dataset_names, open_dataset
    from egm.datasets.rows import Dataset, Malformed
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
    "with_sizes",
    "write_dataset",
]

_MODULES = {
    "check": ("Finding", "check_dataset"),
    "convert": ("row_of", "write_dataset"),
    "flip": ("Flipped", "flip_phrase", "flip_sample"),
    "jsonl": ("JsonlDataset",),
    "refcoco": ("EVALUATION", "SIZES"),
    "registry": ("dataset_names", "open_dataset"),
    "rows": ("Dataset", "Malformed"),
    "sizes": ("with_sizes",),
}


def __getattr__(name: str) -> Any:
    """Load a public name on its first use."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"egm.datasets.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
