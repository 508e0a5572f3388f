"""What is to be asked: samples listed, ordered and digested, and the header that says so."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from egm.datasets.rows import Dataset
from egm.errors import DataError, EgmError
from egm.grounder import Grounder
from egm.images import picture_key
from egm.journal import Header
from egm.types import Sample

_SECRET = re.compile(r"//[^/@\s]+@")  # user and password in a URL


@dataclass(frozen=True, slots=True)
class Question:
    """A sample to ask.

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
        """What no other question of the run shares."""
        return self.split, self.sample.id

    @property
    def seed_index(self) -> int:
        """Which random stream its answers are sampled with."""
        return seed_index_of(*self.key)

    def load(self) -> Sample:
        """The sample with its picture; one that cannot be had is empty, which the engine's side will name."""
        if self.source is None:
            return self.sample
        try:
            return self.source[0][self.source[1]]
        except EgmError:
            return replace(self.sample, image=b"")


def seed_index_of(split: str, identity: str) -> int:
    """The seed index of a sample: whatever else is evaluated with it, the same seed samples the same text."""
    return int.from_bytes(hashlib.sha256(f"{split}\n{identity}".encode("utf-8", "surrogatepass")).digest()[:8], "big")


def find_questions(splits: Mapping[str, Iterable[Sample]]) -> tuple[list[Question], str]:
    """List what is to be asked, and name the pictures; also the folder that the names are relative to."""
    found: list[tuple[str, Sample, tuple[Dataset, int] | None]] = []
    for split, samples in splits.items():
        if isinstance(samples, Dataset) and not samples.names_files:
            found += [(split, sample, (samples, number)) for number, sample in enumerate(samples.annotations())]
        else:
            found += [(split, sample, None) for sample in samples]
    if not found:
        raise DataError(f"there is nothing to evaluate: {', '.join(splits) or 'no dataset'} holds no samples")
    for key, count in Counter((split, sample.id) for split, sample, _ in found).items():
        if count > 1:
            raise DataError(f"{key[0]}: {count} samples have the id {key[1]!r}: give each its own")
    files = [s.image for _, s, source in found if source is None and isinstance(s.image, str | os.PathLike)]
    absolute = {path: str(Path(path).absolute()) for path in {os.fspath(file) for file in files}}
    root = os.path.commonpath([str(Path(path).parent) for path in absolute.values()]) if absolute else ""
    names: dict[object, str] = {path: Path(os.path.relpath(full, root)).as_posix() for path, full in absolute.items()}
    questions = []
    for split, sample, source in found:
        if sample.box is None:
            raise DataError(f"{split}: sample {sample.id!r} has no true box, so no answer can be scored")
        if source is not None:
            name = str(sample.image)
        else:  # a picture in memory goes by the first sample about it
            name = names.setdefault(picture_key(sample.image), f"{split}:{sample.id}")
        questions.append(Question(split, name, sample, source))
    return questions, root


def schedule(questions: Sequence[Question], block: int) -> list[tuple[Question, bool]]:
    """Order questions as `egm.evaluate` says; whether each is the first about its picture stands beside it."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.image, []).append(question)
    albums = list(groups.values())
    order: list[tuple[Question, bool]] = []
    for start in range(0, len(albums), block):
        part = albums[start : start + block]
        order += [(album[0], True) for album in part]
        order += [(question, False) for album in part for question in album[1:]]
    return order


def make_header(grounder: Grounder, questions: Sequence[Question], images: str, engine: Mapping[str, Any]) -> Header:
    """Say what is asked of what, and by what."""
    codec, style = grounder.codec, grounder.prompt or grounder.codec.prompts[0]
    wordings = {
        name: str(codec.messages("PHRASE", amodal=amodal, prompt=style)[0]["content"][-1]["text"])
        for name, amodal in (("modal", False), ("amodal", True))
    }
    plain: Any = codec
    options = {f.name: getattr(codec, f.name) for f in fields(plain)} if is_dataclass(plain) else {}
    return Header(
        model=grounder.backend.model,
        codec={"name": codec.name, **options},
        prompt={"style": style, **wordings},
        settings=asdict(grounder.settings),
        datasets=_datasets(questions),
        concurrency=grounder.batch_size,
        engine={"backend": type(grounder.backend).__name__, **engine},
        images=images,
        versions=_versions(),
        command=tuple(_SECRET.sub("//", argument) for argument in sys.argv),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _datasets(questions: Iterable[Question]) -> dict[str, dict[str, Any]]:
    counts: Counter[str] = Counter()
    digests: dict[str, Any] = {}
    for question in questions:
        sample = question.sample
        assert sample.box is not None
        counts[question.split] += 1
        row = (sample.id, sample.phrase, question.image, tuple(sample.box), sample.amodal)
        digests.setdefault(question.split, hashlib.sha256()).update(json.dumps(row).encode())
    return {name: {"n": counts[name], "digest": digest.hexdigest()[:16]} for name, digest in digests.items()}


def _versions() -> dict[str, str]:
    from egm._version import __version__

    found = {"python": platform.python_version(), "egm": __version__}
    for package in ("numpy", "pillow", "torch", "transformers", "openai"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
