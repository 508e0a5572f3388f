"""Evaluation files for the Hugging Face Hub: results in a model's repository, and what a benchmark's repository says.

A model repository holds `.eval_results/NAME.yaml`, a list of results, which the Hub shows on the model's page and the
benchmark's leaderboard; huggingface_hub has a class for it (`EvalResultEntry`), which writes and reads them here. A
benchmark's dataset repository says in `eval.yaml` how it is evaluated: name, description, evaluation_framework, and
tasks with id, config and split. For that huggingface_hub has no class; the Hub checks it, and takes benchmarks from a
list of its own. Source: https://huggingface.co/docs/hub/eval-results.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from egm._version import __version__
from egm.datasets import split_size
from egm.datasets.benchmarks import benchmark_of, hub_split, measure_title
from egm.errors import DataError
from egm.files import write_text
from egm.report.runs import Run

_HUB_ID: Final = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
FRAMEWORK: Final = "egm"
"""What `eval.yaml` calls the software that evaluates."""


def write_hub_files(run: Run, folder: Path, datasets: Mapping[str, str]) -> list[Path]:
    """Write the evaluation files of a run.

    Args:
        run: Whose results; whole splits that a model answered here.
        folder: Gets `model/.eval_results/NAME.yaml`, and `benchmarks/NAME/eval.yaml`, a file a family of splits.
        datasets: Dataset repositories by family, such as `{"refcoco": "OWNER/NAME"}`, where they are not known.

    Returns:
        The files.

    Raises:
        DataError: If the run cannot stand on a leaderboard, or a dataset repository is not known. Splits that the Hub
            does not have are left out, but not all.
    """
    _refuse_no_result(run)
    families: dict[str, list[str]] = {}
    for split in run.accuracy:
        if _place(split, datasets) is not None:
            families.setdefault(split.partition("/")[0], []).append(split)
    if not families:
        raise DataError(f"the Hub has no split {', '.join(run.accuracy)}: ask the splits that it consists of")
    texts: dict[Path, str] = {}
    for family, splits in families.items():
        dataset = _dataset_of(family, splits[0], datasets)
        texts[folder / "model" / ".eval_results" / f"{family}.yaml"] = results_yaml(run, splits, dataset)
        texts[folder / "benchmarks" / family / "eval.yaml"] = benchmark_yaml(family, splits, datasets)
    for path, text in texts.items():  # all of them, or none
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return list(texts)


def results_yaml(run: Run, splits: Sequence[str], dataset: str) -> str:
    """Write the results of some splits as `.eval_results` has them, held against huggingface_hub's own reader.

    Args:
        run: Whose results.
        splits: Of one family.
        dataset: Its dataset repository.
    """
    try:
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml, parse_eval_result_entries
    except ImportError:
        raise DataError("this huggingface_hub knows no evaluation files: install a newer one") from None

    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=_task(split),
            value=round(100 * run.accuracy[split].value, 2),
            date=run.header.started or None,
            notes=_notes(run, split),
        )
        for split in splits
    ]
    text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True, width=1000)
    if parse_eval_result_entries(yaml.safe_load(text)) != entries:
        raise DataError(f"the results of {splits[0]} do not read back as they were written: report this")
    return text


def splits_left_out(run: Run, datasets: Mapping[str, str]) -> list[str]:
    """Name the splits of a run that the Hub does not have; arguments as of `write_hub_files`."""
    return [split for split in run.accuracy if _place(split, datasets) is None]


def benchmark_yaml(family: str, splits: Sequence[str], datasets: Mapping[str, str]) -> str:
    """Write the `eval.yaml` of a family's dataset repository: all splits of a benchmark, else those that are given."""
    benchmark = benchmark_of(splits[0])
    splits = splits if benchmark is None else benchmark.names
    there = {split: found for split in splits if (found := _place(split, datasets)) is not None}
    content: dict[str, Any] = {
        "name": family,
        "description": f"Visual grounding: {measure_title(there)} in percent, as egm eval counts it.",
        "evaluation_framework": FRAMEWORK,
        "tasks": [{"id": _task(split), "config": config, "split": name} for split, (config, name) in there.items()],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)


def _place(split: str, datasets: Mapping[str, str]) -> tuple[str, str] | None:
    """The Hub's configuration and split: the benchmark's own, or of a dataset that was named, whose splits are ours."""
    return ("default", _task(split)) if split.partition("/")[0] in datasets else hub_split(split)


def _task(split: str) -> str:
    return split.partition("/")[2] or split


def _notes(run: Run, split: str) -> str:
    """How it was counted and asked, so that nobody compares it with what was not."""
    found, header = run.accuracy[split], run.header
    asked = sum(record.split == split for record in run.records)
    parts = [
        f"{measure_title([split])}, 95 % interval {100 * found.low:.2f}-{100 * found.high:.2f} by picture",
        f"{asked:,} questions",
        f"egm {header.versions.get('egm', __version__)}, codec {header.codec.get('name', 'unknown')}",
    ]
    return "; ".join([*parts, *run.remarks])


def _dataset_of(family: str, split: str, datasets: Mapping[str, str]) -> str:
    benchmark = benchmark_of(split)
    named = datasets.get(family) or (None if benchmark is None or "://" in benchmark.source else benchmark.source)
    if named is None:
        raise DataError(
            f"which dataset of the Hub {family} is, is not known here: say it with --hub-dataset {family}=OWNER/NAME"
        )
    if not _HUB_ID.fullmatch(named):
        raise DataError(f"{named!r} is no dataset of the Hub: give OWNER/NAME (--hub-dataset {family}=OWNER/NAME)")
    return named


def _refuse_no_result(run: Run) -> None:
    """Refuse what is no model's result on whole splits."""
    engine = run.header.engine
    if run.is_predictions or "script" in engine or engine.get("backend") in ("ReplayBackend", "ScriptedBackend"):
        raise DataError(
            f"the answers of {run.name} were read from a file, so no model was evaluated: no result for the Hub"
        )
    whole = {split: split_size(split) or count for split, count in run.split_sizes.items()}
    partial = [split for split, count in whole.items() if run.split_sizes[split] != count]
    if run.missing or run.choices or partial or run.header.shard is not None:
        raise DataError(f"{run.name} is no whole run ({'; '.join(run.remarks)}): the Hub's results are of whole splits")
