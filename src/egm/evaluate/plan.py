"""The plan of a run: samples listed, put into an order that shares prefixes, digested, and the journal's header."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, ref

from egm.backends.remote import RemoteBackend
from egm.collector import paused_collector
from egm.datasets.benchmarks import refuse_parts
from egm.datasets.dataset import Choice, Dataset
from egm.environment import package_versions
from egm.errors import DataError, EgmError
from egm.evaluate.shards import Pictured
from egm.grounder import Grounder
from egm.images import picture_key
from egm.journal import Header, question_line, questions_digest
from egm.record_rules import refuse_number
from egm.records import question_facts
from egm.terminal import command_line
from egm.thinking import Gate
from egm.types import Expect, Sample

P = TypeVar("P", bound=Pictured)


@dataclass(frozen=True, slots=True)
class PlannedSample:
    """A sample of a run, and how its picture is had.

    Attributes:
        split: Name of its split.
        image: Name of its picture; samples of one picture share it.
        sample: What is asked; without its picture where `source` holds that.
        source: A dataset that makes or reads its pictures as they are taken, and the number of the sample in it.
    """

    split: str
    image: str
    sample: Sample
    source: tuple[Dataset, int] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What no other sample of the run shares: split and id, as `Record.key`."""
        return self.split, self.sample.id

    @property
    def seed_index(self) -> int:
        """Which random stream its answers are sampled with."""
        return seed_index_of(*self.key)

    def load(self) -> Sample | EgmError:
        """Load the sample with its picture, or return why that cannot be had."""
        if self.source is None:
            return self.sample
        try:
            return replace(self.source[0][self.source[1]], expect=self.sample.expect)
        except EgmError as error:
            return error


@dataclass(frozen=True)
class RunPlan:
    """All that a run is to ask, its shards' samples among them.

    Attributes:
        samples: Its samples, as `plan_samples` lists them.
        images: Folder that names of pictures are relative to.
    """

    samples: Sequence[PlannedSample]
    images: str

    @cached_property
    def digests(self) -> dict[str, dict[str, Any]]:
        """What tells its splits from others, see `dataset_digests`."""
        return dataset_digests(self.samples)


_plans: WeakKeyDictionary[Dataset, tuple[object, RunPlan]] = WeakKeyDictionary()  # by first split


def plan_run(splits: Mapping[str, Iterable[Sample]], expect: Expect | None = None) -> RunPlan:
    """Plan a run; one of the same datasets is planned once in a process, as long as they are there.

    So shards, or models, that are evaluated one after the other list and digest their questions once. Arguments and
    errors as of `plan_samples`.
    """
    datasets = [data for data in splits.values() if isinstance(data, Dataset) and data.names_files]
    datasets = [data for data in datasets if type(data).__iter__ is Dataset.__iter__]
    if not datasets or len(datasets) < len(splits):  # what else is iterated may be other samples the next time
        return RunPlan(*plan_samples(splits, expect))
    try:  # names of pictures depend on it, where their paths are relative to it
        here = os.getcwd()  # noqa: PTH109
    except OSError:  # it was deleted
        return RunPlan(*plan_samples(splits, expect))
    key = tuple(splits), tuple(map(ref, datasets)), tuple(map(len, datasets)), expect, here
    known = _plans.get(datasets[0])
    if known is None or known[0] != key:
        known = _plans[datasets[0]] = key, RunPlan(*plan_samples(splits, expect))
    return known[1]


def seed_index_of(split: str, identity: str) -> int:
    """The seed index of a sample: whatever else is evaluated with it, the same seed samples the same text."""
    return int.from_bytes(hashlib.sha256(f"{split}\n{identity}".encode("utf-8", "surrogatepass")).digest()[:8], "big")


@paused_collector()
def plan_samples(
    splits: Mapping[str, Iterable[Sample]], expect: Expect | None = None
) -> tuple[list[PlannedSample], str]:
    """List the samples of a run, and name their pictures; also the folder that the names are relative to.

    Where `expect` is given, it takes the place of the samples' own.
    """
    refuse_parts(splits)
    listed: list[tuple[str, Sample, tuple[Dataset, int] | None]] = []
    for split, samples in splits.items():
        if isinstance(samples, Dataset) and not samples.names_files:
            listed += [(split, sample, (samples, number)) for number, sample in enumerate(samples.annotations())]
        else:
            listed += [(split, sample, None) for sample in samples]
    if not listed:
        raise DataError(f"there is nothing to evaluate: {', '.join(splits) or 'no dataset'} holds no samples")
    for key, count in Counter((split, sample.id) for split, sample, _ in listed).items():
        if count > 1:
            raise DataError(f"{key[0]}: {count} samples have the id {key[1]!r}: give each its own")
    names, root = _name_files({id(s.image): s.image for _, s, source in listed if source is None}.values())
    known: dict[int, str] = {}  # by identity: samples about one picture mostly share one path
    planned = []
    for split, given, source in listed:
        sample = given if expect is None or given.expect == expect else replace(given, expect=expect)
        if sample.box is None:
            _refuse_truths(split, sample)
        if source is not None:
            name = str(sample.image)
        elif (name := known.get(id(sample.image), "")) == "":  # one in memory goes by the first sample about it
            name = names.setdefault(picture_key(sample.image), f"{split}:{sample.id}")
            known[id(sample.image)] = name
        planned.append(PlannedSample(split, name, sample, source))
    return planned, root


def _refuse_truths(split: str, sample: Sample) -> None:
    """Refuse a sample that cannot be scored: its truth is not known, or is none that it can be answered by."""
    if sample.truths is None:
        raise DataError(f"{split}: sample {sample.id!r} has no true box, so no answer can be scored")
    try:
        refuse_number(sample.expect, len(sample.truths))
    except DataError as error:
        raise DataError(f"{split}: sample {sample.id!r} cannot be scored: {error}") from None


def _name_files(pictures: Iterable[object]) -> tuple[dict[object, str], str]:
    """Name those pictures that are files, by their keys, as paths from a folder that holds all; and that folder."""
    files = {os.fspath(picture): picture for picture in pictures if isinstance(picture, str | os.PathLike)}
    absolute = {name: str((path if isinstance(path, Path) else Path(path)).absolute()) for name, path in files.items()}
    root = os.path.commonpath({os.path.dirname(path) for path in absolute.values()}) if absolute else ""  # noqa: PTH120
    start = os.path.join(root, "")  # noqa: PTH118
    names: dict[object, str] = {
        path: full.removeprefix(start).replace(os.sep, "/")
        if full.startswith(start) and ".." not in full
        else Path(os.path.relpath(full, root)).as_posix()
        for path, full in absolute.items()
    }
    return names, root


def image_order(planned: Iterable[P], block: int) -> list[tuple[P, bool]]:
    """Order samples image by image for prefix sharing; whether each is the first about its image stands beside it.

    Of a block of images the first sample of each comes first, then all others: while those of one image are asked, the
    engine's prefix cache holds it already.
    """
    images = list(group_by_image(planned).values())
    order: list[tuple[P, bool]] = []
    for start in range(0, len(images), block):
        part = images[start : start + block]
        order += [(items[0], True) for items in part]
        order += [(item, False) for items in part for item in items[1:]]
    return order


def group_by_image(planned: Iterable[P]) -> dict[str, list[P]]:
    """Put samples, or records, that share a picture together; pictures in the order of their first."""
    by_image: dict[str, list[P]] = {}
    for item in planned:
        by_image.setdefault(item.image, []).append(item)
    return by_image


def make_header(
    grounder: Grounder,
    planned: Sequence[PlannedSample],
    images: str,
    engine: Mapping[str, Any],
    datasets: Mapping[str, Mapping[str, Any]],
    shard: Mapping[str, Any] | None = None,
) -> Header:
    """The journal's header: what is asked of what, and by what; of a shard, which (`Header.shard`)."""
    codec, style = grounder.codec, grounder.prompt or grounder.codec.prompts[0]
    wordings = {
        name: str(codec.messages("PHRASE", amodal=amodal, prompt=style)[0]["content"][-1]["text"])
        for name, amodal in (("modal", False), ("amodal", True))
    }
    for expect in dict.fromkeys(item.sample.expect for item in planned):
        if expect == "one":
            if grounder.gate is not None:
                grounder.gate.check_expect(expect)
            continue
        grounder.check_expect(expect)
        wordings[expect] = str(codec.messages("PHRASE", prompt=style, expect=expect)[0]["content"][-1]["text"])
    return Header(
        model=grounder.backend.model,
        codec=codec.to_dict(),
        prompt={"style": style, **wordings},
        settings=asdict(grounder.settings),
        datasets=datasets,
        concurrency=grounder.batch_size,
        engine={"backend": type(grounder.backend).__name__, **engine, **_gate_facts(grounder.gate)},
        images=images,
        versions=package_versions("numpy", "pillow", "torch", "transformers", "openai") | _hardware(grounder),
        command=command_line(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        shard=shard,
    )


def _gate_facts(gate: Gate | None) -> dict[str, Any]:
    if gate is None:
        return {}
    digest = hashlib.sha256(gate.to_json().encode()).hexdigest()[:16]
    said = {name: gate.facts[name] for name in ("bound", "expected") if name in gate.facts}
    return {"gate": {"measure": gate.measure, "threshold": gate.threshold, "digest": digest, **said}}


def _hardware(grounder: Grounder) -> dict[str, str]:
    """What a model in this process runs on, which its latencies are of; a server does not say."""
    info = None if isinstance(grounder.backend, RemoteBackend) else grounder.backend.describe()
    return {} if info is None or info.hardware is None else {"hardware": info.hardware}


def with_choices(
    digests: Mapping[str, Mapping[str, Any]], choices: Mapping[str, Choice]
) -> dict[str, Mapping[str, Any]]:
    """Say of splits which of their pictures were chosen, where not all were."""
    return {
        split: {**facts, "choice": asdict(choices[split])} if split in choices else facts
        for split, facts in digests.items()
    }


def dataset_digests(planned: Iterable[PlannedSample]) -> dict[str, dict[str, Any]]:
    """Tell the splits of a run from others: see `Header.datasets`."""
    rows: dict[str, list[bytes]] = {}
    for item in planned:
        rows.setdefault(item.split, []).append(_line(item))
    return {
        split: {
            "n": len(asked),
            "digest": hashlib.sha256(b"".join(asked)).hexdigest()[:16],
            "questions": questions_digest(asked),
        }
        for split, asked in rows.items()
    }


def _line(item: PlannedSample) -> bytes:
    """What a sample asks, as `question_line` writes it."""
    sample = item.sample
    if sample.expect == "one" and sample.box is not None:
        return question_line(sample.id, sample.phrase, item.image, sample.box.corners, amodal=sample.amodal)
    facts = question_facts(sample)
    return question_line(facts.pop("id"), image=item.image, **facts)
