"""Journals as the runs of a report: complete, about the same samples, and one run where a model's splits lie apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from egm import stats
from egm.datasets import EVALUATION, split_size
from egm.datasets.benchmarks import BENCHMARK_SPLITS, benchmark_of, parts_among
from egm.datasets.dataset import Choice
from egm.errors import DataError
from egm.evaluate.remarks import asking_remarks
from egm.journal import ERROR, Header, Record, is_journal, read_whole_run, refuse_shard
from egm.progress import track
from egm.report.predictions import model_of, read_records
from egm.report.summary import cluster_numbers, hits_of
from egm.stats import Estimate
from egm.terminal import printable

_PREDICTIONS = "predictions"


@dataclass(frozen=True)
class Run:
    """What one model answered.

    Attributes:
        name: What to call it.
        header: What was asked, and how; of the first journal, where there are several.
        records: One a sample that was answered.
        split_sizes: How many samples each split has.
    """

    name: str
    header: Header
    records: Sequence[Record]
    split_sizes: Mapping[str, int]

    @property
    def is_predictions(self) -> bool:
        """Whether it is of a file of predictions, which says nothing of what the answers cost."""
        return _PREDICTIONS in self.header.engine

    @property
    def missing(self) -> dict[str, int]:
        """How many samples of each split were not answered yet; splits that are complete are left out."""
        counts = Counter(record.split for record in self.records)
        return {split: n - counts[split] for split, n in self.split_sizes.items() if counts[split] < n}

    @property
    def remarks(self) -> tuple[str, ...]:
        """What keeps the run's figures from being those of whole splits, asked as usual, without errors."""
        remarks = [] if self.header.share is None else [f"only shard {self.header.share}"]
        if missing := self.missing:
            remarks.append(
                f"incomplete: {sum(missing.values()):,} of {sum(self.split_sizes.values()):,} samples are missing"
            )
        choices = self.choices
        remarks += [f"only {choice}" for choice in dict.fromkeys(choices.values())]
        for split, n in self.split_sizes.items():
            whole = split_size(split) or n
            if n != whole and split not in choices:
                remarks.append(f"{n:,} of the {whole:,} expressions of {split}")
        remarks += asking_remarks(self.header, self.records)
        if errors := sum(record.failure == ERROR for record in self.records):
            remarks.append(f"{errors:,} of {len(self.records):,} answers are errors of the engine, and count as misses")
        return tuple(remarks)

    @property
    def choices(self) -> dict[str, Choice]:
        """Which pictures each split was asked about, where not about all."""
        facts = ((split, self.header.datasets.get(split, {}).get("choice")) for split in self.split_sizes)
        return {split: Choice(**choice) for split, choice in facts if choice is not None}

    @cached_property
    def accuracy(self) -> dict[str, Estimate]:
        """What counts in each split (`Record.hit`), usually Acc@0.5; intervals clustered by picture."""
        estimates = {}
        for split in self.split_sizes:
            records = [record for record in self.records if record.split == split]
            if records:
                estimates[split] = stats.cluster_mean(hits_of(records), cluster_numbers(records))
        return estimates

    def average(self, splits: Sequence[str]) -> Estimate | None:
        """The same as the mean over some splits, as the model card averages; None where one of them is not there."""
        if not splits or not set(splits) <= self.accuracy.keys():
            return None
        records = [record for record in self.records if record.split in splits]
        strata = np.array([splits.index(record.split) for record in records], dtype=np.intp)
        return stats.cluster_mean(hits_of(records), cluster_numbers(records), strata=strata)


def load_runs(
    paths: Sequence[str | Path], *, names: Sequence[str] | None = None, allow_partial: bool = False
) -> list[Run]:
    """Read the journals of `egm eval`, and files of predictions that carry the truth.

    Journals that differ in nothing but their splits become one run, so that splits may have been evaluated one by one.

    Args:
        paths: Journals, or the run folders that hold them; or files of predictions with boxes, and their true ones
            (`egm.report.prediction_files`).
        names: What to call each; by default the model's name, with the folder's where two models share it.
        allow_partial: Accept runs in which samples are missing.

    Raises:
        DataError: If there is no journal, one is incomplete or a shard, or two are about different datasets.
    """
    if names is not None and len(names) != len(paths):
        raise DataError(f"{len(names)} names for {len(paths)} runs: give one for each, or none")
    folders = [Path(path) for path in paths]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise DataError("a run is given twice: name each run folder once")
    runs: list[Run] = []
    places: list[Path] = []
    for number, folder in enumerate(track(folders, "reading runs")):
        run = _load(folder, printable(names[number]) if names else "")
        _check_complete(run, folder, allow_partial=allow_partial)
        joined = next((n for n, earlier in enumerate(runs) if _same_but_for_splits(earlier, run)), None)
        if joined is None:
            runs.append(run)
            places.append(folder)
        else:
            earlier = runs[joined]
            split_sizes = {**earlier.split_sizes, **run.split_sizes}
            runs[joined] = Run(earlier.name, earlier.header, [*earlier.records, *run.records], split_sizes)
    _check_datasets(runs, places)
    models = Counter(run.header.model for run in runs)
    return [run if run.name else _named(run, place, models) for run, place in zip(runs, places, strict=True)]


def columns_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """The eight splits of RefCOCO, if the runs are about any of them; else the splits that they have, in order."""
    splits = dict.fromkeys(split for run in runs for split in run.split_sizes)
    return EVALUATION if splits.keys() & set(EVALUATION) else tuple(splits)


def benchmarks_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """The splits of benchmarks that the runs are about, in the order of the table of these."""
    return tuple(split for split in BENCHMARK_SPLITS if any(split in run.split_sizes for run in runs))


def shared_splits(runs: Sequence[Run]) -> tuple[str, ...]:
    """The splits that every run has answers to, in the order of `columns_of`."""
    return tuple(split for split in columns_of(runs) if all(split in run.accuracy for run in runs))


def _load(folder: Path, name: str) -> Run:
    if folder.is_file() and not is_journal(folder):
        records = read_records(folder)
        counts = Counter(record.split for record in records)
        datasets = {split: {"n": n} for split, n in counts.items()}
        header = Header(model_of(folder), {}, {}, {}, datasets, engine={_PREDICTIONS: folder.name})
        return Run(name, header, records, dict(counts))
    header, records = read_whole_run(folder)
    return Run(name, header, records, {split: facts["n"] for split, facts in header.datasets.items()})


def _check_complete(run: Run, folder: Path, *, allow_partial: bool) -> None:
    if not run.records:
        raise DataError(f"{str(folder)!r} holds no answer yet: run its `egm eval` command first")
    if not allow_partial:
        refuse_shard(folder, run.header, ", or report it alone with --allow-partial")
    if run.missing and not allow_partial:
        parts = ", ".join(f"{split} {count:,}" for split, count in run.missing.items())
        total = sum(run.split_sizes.values())
        raise DataError(
            f"{str(folder)!r} is incomplete: {sum(run.missing.values()):,} of {total:,} samples are "
            f"missing ({parts}): go on with its `egm eval` command, or report what is there with --allow-partial"
        )


def _same_but_for_splits(earlier: Run, run: Run) -> bool:
    if earlier.name != run.name or earlier.split_sizes.keys() & run.split_sizes.keys():
        return False
    if parts_among((*earlier.split_sizes, *run.split_sizes)):  # whose questions would count twice
        return False
    return all(name.startswith("datasets.") for name in earlier.header.differences(run.header))


def _check_datasets(runs: Sequence[Run], places: Sequence[Path]) -> None:
    where: dict[str, tuple[int, Path, dict[str, Record]]] = {}
    for run, place in zip(runs, places, strict=True):
        for split, n in run.split_sizes.items():
            records = {record.id: record for record in run.records if record.split == split}
            count, other, theirs = where.setdefault(split, (n, place, records))
            if (how := f"{count:,} and {n:,} samples" if n != count else _unlike(theirs, records)) is not None:
                about = f"are about different samples of {split} ({how})"
            elif asked := _asked_unlike(theirs, records):
                about = f"asked {split} for other numbers of boxes ({asked})"
            else:
                continue
            raise DataError(f"{str(other)!r} and {str(place)!r} {about}: report them apart")
    strangers = [split for split in where if split not in EVALUATION and benchmark_of(split) is None]
    ours = next((split for split in where if split in EVALUATION), None)
    if strangers and ours is not None:
        raise DataError(
            f"mixed datasets: {str(where[ours][1])!r} has {ours}, {str(where[strangers[0]][1])!r} has {strangers[0]}: "
            "report RefCOCO's splits and others apart"
        )


def _unlike(earlier: Mapping[str, Record], records: Mapping[str, Record]) -> str | None:
    """How records of a split by their ids are not of the same samples; None where they are."""
    shared = earlier.keys() & records.keys()
    if all(_same(earlier[key], records[key]) for key in shared) and (shared or not (earlier and records)):
        return None
    return "other ids, phrases or boxes"


def _asked_unlike(earlier: Mapping[str, Record], records: Mapping[str, Record]) -> str:
    """The first two different `--expect` with which the same samples were asked, if any were."""
    pairs = ((earlier[key].expect, record.expect) for key, record in records.items() if key in earlier)
    return next((f"--expect {before} and {now}" for before, now in pairs if before != now), "")


def _same(record: Record, other: Record) -> bool:
    mine, theirs = (tuple(chain(*of.true_boxes)) for of in (record, other))
    if (record.phrase, len(mine)) != (other.phrase, len(theirs)):
        return False
    return all(abs(a - b) <= 0.01 for a, b in zip(mine, theirs, strict=True))


def _named(run: Run, place: Path, models: Counter[str]) -> Run:
    model = run.header.model
    name = model if models[model] == 1 else f"{model} ({place.name if place.is_dir() else place.parent.name})"
    return Run(printable(name), run.header, run.records, run.split_sizes)
