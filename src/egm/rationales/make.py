"""The whole way in one call: samples explained, filtered and checked, and training data written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from egm.codecs import DEFAULT_CODEC, Codec, get_codec
from egm.datasets.dataset import Dataset
from egm.rationales.run import RationaleRun, RunSettings, run_rationales
from egm.rationales.teachers import Teacher
from egm.rationales.write import check_formats, write_outputs


def make_rationales(
    dataset: Dataset,
    teacher: Teacher,
    folder: str | os.PathLike[str],
    settings: RunSettings,
    *,
    codec: Codec | None = None,
    formats: Sequence[str] = (),
    **options: Any,
) -> RationaleRun:
    """Have a teacher explain the samples of a dataset, keep what passes, and write training data.

    The same call again goes on where it ended, however it ended: nothing is paid for twice.

    Args:
        dataset: What to explain; every sample has a true box.
        teacher: Who explains, such as a `ModelTeacher`.
        folder: The run folder: gets the journal, `train.jsonl`, `train.parquet`, conversations and `README.md`.
        settings: Style, filters and tries.
        codec: The family that will be trained; that of `DEFAULT_CODEC` if not given.
        formats: Conversations to write too: `qwen-vl-finetune`, `llama-factory`, `ms-swift`.
        **options: What else `run_rationales` takes: `blind`, `spending`, `concurrency`, `go_on`, `progress`.

    Raises:
        EgmError: As `run_rationales` and `write_outputs` raise.
    """
    family = codec or get_codec(DEFAULT_CODEC)
    check_formats(formats)
    run = run_rationales(dataset, teacher, folder, settings, codec=family, **options)
    notes = write_outputs(dataset, run, Path(folder), codec=family, formats=formats)
    return replace(run, notes=[*run.notes, *notes])
