"""The plan of a run: samples listed, put into an order that shares prefixes, digested, and the journal's header."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

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
from egm.thinking import Gate
from egm.types import Expect, Sample

P = TypeVar("P", bound=Pictured)
_SECRET = re.compile(r"//[^/@\s]+@")  # user and password in a URL


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
    files = [s.image for _, s, source in listed if source is None and isinstance(s.image, str | os.PathLike)]
    absolute = {path: str(Path(path).absolute()) for path in {os.fspath(file) for file in files}}
    root = os.path.commonpath([str(Path(path).parent) for path in absolute.values()]) if absolute else ""
    names: dict[object, str] = {path: Path(os.path.relpath(full, root)).as_posix() for path, full in absolute.items()}
    planned = []
    for split, given, source in listed:
        sample = given if expect is None or given.expect == expect else replace(given, expect=expect)
        if sample.truths is None:
            raise DataError(f"{split}: sample {sample.id!r} has no true box, so no answer can be scored")
        try:
            refuse_number(sample.expect, len(sample.truths))
        except DataError as error:
            raise DataError(f"{split}: sample {sample.id!r} cannot be scored: {error}") from None
        if source is not None:
            name = str(sample.image)
        else:  # a picture in memory goes by the first sample about it
            name = names.setdefault(picture_key(sample.image), f"{split}:{sample.id}")
        planned.append(PlannedSample(split, name, sample, source))
    return planned, root


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
    choices: Mapping[str, Choice],
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
        datasets=dataset_digests(planned, choices),
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


def command_line() -> tuple[str, ...]:
    """The command line of this process, without the password of a URL."""
    return tuple(_SECRET.sub("//", argument) for argument in sys.argv)


def dataset_digests(
    planned: Iterable[PlannedSample], choices: Mapping[str, Choice] = MappingProxyType({})
) -> dict[str, dict[str, Any]]:
    """Tell the splits of a run from others: see `Header.datasets`."""
    rows: dict[str, list[bytes]] = {}
    for item in planned:
        sample = item.sample
        facts = question_facts(sample)
        rows.setdefault(item.split, []).append(question_line(facts.pop("id"), image=item.image, **facts))
    return {
        split: {
            "n": len(asked),
            "digest": hashlib.sha256(b"".join(asked)).hexdigest()[:16],
            "questions": questions_digest(asked),
            **({"choice": asdict(choices[split])} if split in choices else {}),
        }
        for split, asked in rows.items()
    }
