"""A run: samples to a teacher, its answers through filters and a blind check, and what is kept into a journal.

Each sample has up to so many tries; then it is dropped, and nothing is ever patched. A run that was
interrupted, however that was, reads its journal, goes on with the same samples, and pays for nothing twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from egm.codecs import Codec
from egm.datasets.dataset import Dataset
from egm.environment import package_versions
from egm.errors import EgmError
from egm.evaluate.plan import dataset_digests, plan_samples
from egm.evaluate.progress import progress_bar
from egm.evaluate.shards import Shard
from egm.rationales.blind import BlindCheck
from egm.rationales.candidate import Candidate
from egm.rationales.filters import build_filters, default_recipe
from egm.rationales.filters.evaluation_picture import EvaluationPicture
from egm.rationales.ledger import Ledger
from egm.rationales.prices import Spending
from egm.rationales.runner import Runner
from egm.rationales.styles import TeacherStyle
from egm.rationales.tally import Tally
from egm.rationales.teachers import Teacher
from egm.terminal import command_line


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run goes about it; all of it decides what comes out.

    Attributes:
        style: Name of the style.
        wording: How the style asks; None for a teacher that is not asked in words.
        filters: Options by the filter's name, see `egm.rationales.filters.build_filters`; None takes the style's.
        tries: Most tries a sample.
    """

    style: str
    wording: TeacherStyle | None = None
    filters: Mapping[str, Any] | None = None
    tries: int = 3


@dataclass(frozen=True, slots=True)
class RationaleRun:
    """A run as its journal has it.

    Attributes:
        header: What was asked of what: `identity` and `about`.
        kept: Numbers of the samples with a rationale, in the order of the dataset, each with the call that brought it.
        tally: What became of all of them.
        stopped: Why it ended before its time, or None.
        is_early: Whether that was for a teacher of whose answers nearly all were dropped.
        notes: What could not be looked for or written, and why, a sentence each.
    """

    header: Mapping[str, Any]
    kept: Sequence[tuple[int, Candidate]]
    tally: Tally
    stopped: str | None = None
    is_early: bool = False
    notes: Sequence[str] = ()


def run_rationales(
    dataset: Dataset,
    teacher: Teacher,
    folder: str | os.PathLike[str],
    settings: RunSettings,
    *,
    codec: Codec,
    blind: BlindCheck | None = None,
    spending: Spending | None = None,
    concurrency: int = 8,
    go_on: bool = False,
    shard: Shard | None = None,
    progress: bool = True,
) -> RationaleRun:
    """Have a teacher explain the samples of a dataset, and keep what passes.

    The same call again goes on where it ended, however it ended: nothing is paid for twice. Samples whose call failed
    are asked again then.

    Args:
        dataset: What to explain; every sample has a true box.
        teacher: Who explains.
        folder: The run folder: gets `journal.jsonl`.
        settings: Style, filters and tries.
        codec: The family that will be trained: the scale of coordinates in a rationale.
        blind: The blind check, if there is one.
        spending: The budget and the prices; nothing may be spent in it yet.
        concurrency: Most calls under way at once, those of the blind check among them.
        go_on: Go on also where nearly all of the last answers were dropped.
        shard: Explain only the samples of this shard, for `egm.rationales.merge` to put beside the others.
        progress: Whether to show progress on standard error.

    Returns:
        What became of every sample.

    Raises:
        DataError: If a sample has no true box, two share an id, or the folder holds another run.
        EgmError: If a number is out of range, or a filter is unknown.
    """
    for name, value in (("concurrency", concurrency), ("tries", settings.tries)):
        if value < 1:
            raise EgmError(f"{name} {value} is out of range: give at least 1")
    listed, images = plan_samples({dataset.name: dataset})
    planned, numbers = dict(enumerate(listed)), None
    identity = run_identity(teacher, settings, codec=codec, blind=blind, shard=shard)
    data = dataset_digests(listed)[dataset.name] | {"name": dataset.name}
    if shard is not None:
        planned = shard.take(listed)
        numbers = {item.sample.id: number for number, item in planned.items()}
        identity["shard"]["of"] = data
        data = dataset_digests(planned.values())[dataset.name] | {"name": dataset.name}
    identity["data"] = data
    versions = package_versions("numpy", "pillow", "openai", "torch", "transformers", "datasketch")
    about = {
        "versions": versions,
        "images": images,
        "command": list(command_line()),
        "style": None if settings.wording is None else settings.wording.model_dump(mode="json"),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    runner = Runner(
        planned,
        teacher,
        blind,
        build_filters(identity["filters"]),
        style=settings.style,
        tries=settings.tries,
        codec=codec,
        spending=spending or Spending(),
        concurrency=concurrency,
        go_on=go_on,
    )
    with Ledger(Path(folder), identity, about, numbers) as ledger:
        runner.take_up(ledger)
        with progress_bar(runner.tally, enabled=progress, task="explaining") as update:
            for _ in runner.run(ledger):
                update()
    return RationaleRun(ledger.header, runner.kept, runner.tally, runner.stopped, runner.is_early, runner.notes)


def run_identity(
    teacher: Teacher, settings: RunSettings, *, codec: Codec, blind: BlindCheck | None, shard: Shard | None = None
) -> dict[str, Any]:
    """What tells a run from others, but for its data (`data`, and `shard.of`), JSON-ready; see `run_rationales`."""
    recipe = style_filters(settings.style, settings.wording) if settings.filters is None else settings.filters
    return {
        "teacher": teacher.identity(),
        "style": {"name": settings.style, "digest": "" if settings.wording is None else settings.wording.digest},
        "codec": codec.to_dict(),
        "filters": json.loads(json.dumps(recipe)),  # as the journal gives it back
        "tries": settings.tries,
        "blind": None if blind is None else blind.identity(),
        "egm": package_versions()["egm"],
        **({} if shard is None else {"shard": {"number": shard.number, "count": shard.count}}),
    }


def style_filters(style: str, wording: TeacherStyle | None, *, data: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the filters of a style: those that every run has, with the lengths and boxes that its wording asks for.

    Args:
        style: Its name.
        wording: How it asks; None for a teacher that is not asked in words.
        data: Folder of RefCOCO's annotations, by which pictures of its evaluation splits are known; by default where
            `egm eval` looks for them.
    """
    recipe = {name: dict(options) for name, options in default_recipe(style).items()}
    if wording is not None:
        recipe["length"] |= {"least": wording.words[0], "most": wording.words[1]}
        recipe["leak"] |= {"coordinates": not wording.boxes}
        recipe = {name: options for name, options in recipe.items() if name not in wording.without}
    return {**recipe, EvaluationPicture.name: {} if data is None else {"data": data}}
