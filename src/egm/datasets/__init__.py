"""Datasets of EGM: every format that users have, read into Samples."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from egm.datasets.check import Finding, check_dataset
    from egm.datasets.convert import write_dataset
    from egm.datasets.dataset import Dataset
    from egm.datasets.flip import Flipped, flip_phrase, flip_sample
    from egm.datasets.jsonl import JsonlDataset
    from egm.datasets.read_rows import Malformed
    from egm.datasets.refcoco import EVALUATION, SIZES
    from egm.datasets.registry import dataset_names, open_dataset

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
    "write_dataset",
]

_MODULES = {
    "check": ("Finding", "check_dataset"),
    "convert": ("write_dataset",),
    "dataset": ("Dataset",),
    "flip": ("Flipped", "flip_phrase", "flip_sample"),
    "jsonl": ("JsonlDataset",),
    "read_rows": ("Malformed",),
    "refcoco": ("EVALUATION", "SIZES"),
    "registry": ("dataset_names", "open_dataset"),
}


def __getattr__(name: str) -> Any:
    """Load a public name on its first use."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"egm.datasets.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
