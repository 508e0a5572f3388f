"""What comes out of a run: training data in the project's schema and in those of other tools, and a data card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from egm.codecs import Codec
from egm.datasets.conversations import TOOLS, dataset_info
from egm.datasets.convert import ENDINGS, save_pictures, write_dataset
from egm.datasets.dataset import Dataset
from egm.errors import EgmError, nearest
from egm.extras import need
from egm.files import write_text
from egm.rationales.candidate import Candidate
from egm.rationales.card import data_card
from egm.rationales.run import RationaleRun
from egm.types import Sample

PICTURES: Final = "images"
"""Folder in the run folder that pictures which are no files of their own are written to."""


class ExplainedDataset(Dataset):
    """Samples of a dataset with the rationales that were kept, in its order.

    Args:
        source: The dataset.
        kept: Numbers of samples in it, each with what was kept.
    """

    def __init__(self, source: Dataset, kept: Sequence[tuple[int, Candidate]]) -> None:
        self._source, self._kept = source, kept
        self.names_files = source.names_files
        samples = [replace(each.sample, rationale=each.text) for _, each in kept]
        super().__init__(source.name, samples, root=source.root, kind=source.kind, scale=source.scale)

    def _at(self, index: int) -> Sample:
        number, candidate = self._kept[index]
        return replace(self._source[number], rationale=candidate.text, size=candidate.sample.size)


def check_formats(formats: Sequence[str]) -> None:
    """Refuse a format that is none of other tools', before anything is paid for.

    Raises:
        EgmError: If there is one.
    """
    for name in formats:
        if name not in TOOLS:
            raise EgmError(f"there is no format {name!r} of conversations: {nearest(name, tuple(TOOLS))}")
    need("writing train.parquet", "pyarrow")


def write_outputs(
    dataset: Dataset, run: RationaleRun, folder: Path, *, codec: Codec, formats: Sequence[str] = ()
) -> list[str]:
    """Write what a run kept, each file in full or not at all, over what an earlier part of the run wrote.

    Args:
        dataset: What was explained.
        run: What came of it.
        folder: The run folder: gets `train.jsonl` and `train.parquet` for `egm sft`, one file of conversations for each
            format, and `README.md`, the data card. Pictures that are no files are written to `images/` in it.
        codec: The family that is trained: questions and targets are its.
        formats: Of other tools, see `egm.datasets.conversations.TOOLS`.

    Returns:
        What could not be written and why, a sentence each.

    Raises:
        EgmError: If a picture cannot be read, or a file not be written.
    """
    notes: list[str] = []
    files: dict[str, str] = {}
    if run.kept:
        explained: Dataset = ExplainedDataset(dataset, run.kept)
        if not dataset.names_files:
            saved = save_pictures(explained, folder / PICTURES)
            explained = Dataset(saved.name, saved.annotations(), root=folder, kind=saved.kind, scale=saved.scale)
        for kind in ("jsonl", "parquet", *formats):
            name = f"{kind.replace('-', '_') if kind in TOOLS else 'train'}{ENDINGS[kind]}"
            try:
                write_dataset(explained, folder / name, kind, codec=codec)
            except EgmError as error:
                notes.append(f"{name} was not written: {error}")
                continue
            files[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            if kind == "llama-factory":
                info = dataset_info(f"{folder.resolve().name}_rationales", name)
                write_text(folder / "dataset_info.json", json.dumps(info, indent=2) + "\n")
    else:
        notes.append("no rationale was kept, so no training data was written")
    root = folder if not dataset.names_files else dataset.root
    write_text(folder / "README.md", data_card(run, files, "" if root is None else str(root)))
    return notes
