"""Scores on a model card: journals of the model that is exported, and of no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from egm import stats
from egm.backends.checkpoint import EMBEDDED, tensors_digest, weights_digest
from egm.datasets import split_size
from egm.datasets.benchmarks import measure_of, measure_title
from egm.errors import ModelError
from egm.evaluate.remarks import asking_remarks
from egm.evaluate.totals import totals
from egm.journal import Header, Record, read_whole_run, refuse_shard
from egm.models import embedded_path
from egm.terminal import printable

_HEAD = (
    "| answered by | data | answered | {}, % | mean IoU | no box, % | tokens |\n|---|---|---|---|---|---|---|",
    "A model behind a server goes by its name there: its weights could not be compared with these.",
)
_SERVED = " (served)"
_TIMES = (
    "| answered by | data | answers | at once | mean | p50 | p90 | p99 | hardware, engine | on |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)
_FAST = ("numpy", "torch", "transformers")  # whose versions decide how fast a model in process is


@dataclass(frozen=True)
class ScoredRun:
    """A journal that is to stand on a card.

    Attributes:
        path: Where it is.
        header: What was asked of what.
        records: What was answered.
    """

    path: Path
    header: Header
    records: Sequence[Record]

    @property
    def model(self) -> str:
        """The name of the model that answered; of a path at home only what tells it from others."""
        name = Path(self.header.model)
        return "/".join(name.parts[-2:]) if name.is_absolute() else self.header.model

    @property
    def _folder(self) -> Path | None:
        """Where the model lies, if its name in the journal is that of a model that is here."""
        if self.header.model == EMBEDDED:
            return embedded_path()
        path = Path(self.header.model).expanduser()
        return path if path.is_dir() and any(path.glob("*.safetensors")) else None

    @cached_property
    def is_of_known_weights(self) -> bool:
        """Whether the weights that answered can be compared with others."""
        return bool(self.header.engine.keys() & {"tensors", "weights"}) or self._folder is not None

    def is_of(self, folder: Path) -> bool:
        """Tell whether the weights that answered are those of a folder."""
        engine = self.header.engine
        if "tensors" in engine:
            return bool(engine["tensors"] == tensors_digest(folder))
        if "weights" in engine:  # written before tensors were compared
            return bool(engine["weights"] == weights_digest(folder))
        return self._folder is not None and tensors_digest(self._folder) == tensors_digest(folder)


def read_scores(paths: Iterable[Path]) -> list[ScoredRun]:
    """Read journals of `egm eval`, or its folders.

    Raises:
        DataError: If a journal cannot be read, or is that of a shard.
        ModelError: If its answers came from a file.
    """
    runs = [ScoredRun(path, *read_whole_run(path)) for path in paths]
    for run in runs:
        refuse_shard(run.path, run.header)
        if run.header.engine.get("backend") in ("ReplayBackend", "ScriptedBackend"):
            raise ModelError(
                f"the answers in {str(run.path)!r} were replayed from a file (--script), so no model was evaluated: "
                "give the journal of the run that asked the model"
            )
    return runs


def check_scores(runs: Iterable[ScoredRun], folders: Sequence[Path], names: Sequence[str]) -> None:
    """Refuse journals of another model than the one that is exported.

    Weights are compared where the journal knows them, whatever folder they lie in. A server does not show its weights:
    there the name that it serves them by decides.

    Args:
        runs: The journals.
        folders: The exported model: the folder it comes from, and the one that is written.
        names: What it may be called.

    Raises:
        ModelError: If a journal is of another model, or of one behind a server that goes by another name.
    """
    for run in runs:
        if run.is_of_known_weights:
            if not any(run.is_of(folder) for folder in folders if any(folder.glob("*.safetensors"))):
                raise ModelError(
                    f"{str(run.path)!r} holds answers of {run.header.model!r}, whose weights are not those of the "
                    "exported model: evaluate the model itself, or leave that journal out"
                )
        elif not {run.header.model, Path(run.header.model).name} & set(names):
            raise ModelError(
                f"{str(run.path)!r} holds answers of {run.header.model!r} behind a server, which does not show its "
                f"weights, and the exported model is called {names[0]!r}: if they are the same, say so with "
                f"--title {Path(run.header.model).name}; else leave that journal out"
            )


def score_table(runs: Iterable[ScoredRun]) -> list[str]:
    """Write the table of scores, a row a journal and split; no lines without journals."""
    rows, any_served, splits = [], False, dict[str, None]()
    for run, split, records in _parts(runs):
        splits.setdefault(split)
        any_served = any_served or not run.is_of_known_weights
        numbers = totals(records)
        missing = sum(numbers["failures"].values()) + sum(numbers["errors"].values())
        tokens = numbers["tokens"]["completion"]
        clusters = stats.picture_numbers([record.image for record in records])
        accuracy = stats.cluster_mean([float(record.hit()) for record in records], clusters)
        overlap = stats.cluster_mean([record.iou for record in records], clusters)
        rows.append(
            f"| {_name(run, records)} | {table_cell(split)} "
            f"| {len(records):,} of {split_size(split) or run.header.datasets[split]['n']:,} "
            f"| {100 * accuracy.value:.1f} ({100 * accuracy.low:.1f}-{100 * accuracy.high:.1f}) "
            f"| {overlap.value:.3f} ({overlap.low:.3f}-{overlap.high:.3f}) | {100 * missing / len(records):.1f} "
            f"| {'' if tokens is None else f'{tokens:.0f}'} |"
        )
    if not rows:
        return []
    notes = [_HEAD[1]] if any_served else []
    if by_centre := [split for split in splits if measure_of(split) == "centre"]:
        named = ", ".join(map(table_cell, by_centre))
        notes.append(f"Of {named} an answer is right if the centre of its box lies in the true one.")
    return [_HEAD[0].format(measure_title(splits)), *rows, *(line for text in notes for line in ("", text))]


def latency_table(runs: Iterable[ScoredRun]) -> list[str]:
    """Write how long answers took, a row a journal and split; no lines where nothing took time."""
    rows = []
    for run, split, records in _parts(runs):
        numbers = totals(records)["latency"]["seconds"]
        if numbers is None or not numbers["p99"]:
            continue
        engine = run.header.engine
        how = [str(engine.get("serve") or engine.get("backend") or "engine")]
        in_process = run.is_of_known_weights and not engine.get("serve")
        if in_process and engine.get("dtype"):
            how.append(f"dtype {engine['dtype']}")
        times = " | ".join(f"{numbers[key]:.3g}" for key in ("mean", "p50", "p90", "p99"))
        hardware = run.header.versions.get("hardware", "not known")
        fast = [f"{name} {of}" for name, of in run.header.versions.items() if in_process and name in _FAST]
        parts = (printable(hardware.replace("|", " ")), ", ".join(how), ", ".join(fast))
        where = "; ".join(filter(None, parts))
        rows.append(
            f"| {_name(run, records)} | {table_cell(split)} | {numbers['n']:,} | {run.header.concurrency} | {times} "
            f"| {where} | {run.header.started[:10]} |"
        )
    return [_TIMES, *rows] if rows else []


def _parts(runs: Iterable[ScoredRun]) -> Iterator[tuple[ScoredRun, str, list[Record]]]:
    """The splits of each run that it has answers to."""
    for run in runs:
        for split in run.header.datasets:
            if records := [record for record in run.records if record.split == split]:
                yield run, split, records


def _name(run: ScoredRun, records: Sequence[Record]) -> str:
    """What answered these records of a run, and how they were asked for where that is not as usual."""
    served = "" if run.is_of_known_weights else _SERVED
    return "; ".join([table_cell(run.model) + served, *map(table_cell, asking_remarks(run.header, records))])


def table_cell(text: str) -> str:
    """Write a text as a cell of a card's table."""
    return printable(text.replace("|", "\\|"))
