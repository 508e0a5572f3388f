"""Scores on a model card: journals of the model that is exported, and of no other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from egm.backends.checkpoint import EMBEDDED, tensors_digest, weights_digest
from egm.datasets import split_size
from egm.errors import ModelError
from egm.evaluate.totals import totals
from egm.journal import Header, Record, read_whole_run, refuse_shard
from egm.models import embedded_path

_HEAD = (
    "| answered by | data | answered | Acc@0.5, % | mean IoU | no box, % | tokens |\n|---|---|---|---|---|---|---|",
    "A model behind a server goes by its name there: its weights could not be compared with these.",
)
_SERVED = " (served)"


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
    rows, any_served = [], False
    for run in runs:
        served = not run.is_of_known_weights
        any_served = any_served or served
        for split, facts in run.header.datasets.items():
            records = [record for record in run.records if record.split == split]
            if not records:
                continue
            numbers = totals(records)
            missing = sum(numbers["failures"].values()) + sum(numbers["errors"].values())
            tokens = numbers["tokens"]["completion"]
            model = " ".join(run.model.replace("|", "\\|").split()) + _SERVED * served
            rows.append(
                f"| {model} | {split} | {len(records):,} of {split_size(split) or facts['n']:,} "
                f"| {100 * numbers['accuracy']:.1f} | {numbers['mean_iou']:.3f} | {100 * missing / len(records):.1f} "
                f"| {'' if tokens is None else f'{tokens:.0f}'} |"
            )
    if not rows:
        return []
    return [_HEAD[0], *rows, *(["", _HEAD[1]] if any_served else [])]
