"""Shards put together: the journal and the numbers of the run that was not cut into shards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from egm.append_only import json_line
from egm.collector import paused_collector
from egm.errors import DataError
from egm.evaluate.plan import group_by_image, image_order
from egm.evaluate.progress import RunningCounts, check_max_errors
from egm.evaluate.run import MAX_ERRORS, Evaluation, block_size, write_numbers, write_settings
from egm.evaluate.shards import DealtPictures
from egm.files import write_bytes
from egm.journal import (
    JOURNAL_NAME,
    Header,
    Record,
    check_questions,
    joined_digest,
    journal_lines,
    read_journal,
    read_whole_run,
)
from egm.progress import track
from egm.terminal import command_line


@dataclass(frozen=True, slots=True)
class MergedRun(Evaluation):
    """Shards as one run.

    Attributes:
        remarks: What is missing of it, a sentence each; nothing where it is whole.
    """

    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    """The journal of a shard."""

    place: Path
    header: Header
    records: list[Record]
    number: int
    count: int
    of: Mapping[str, Mapping[str, Any]]
    lines: Sequence[bytes]  # of its records; none where an error was tried again

    def __str__(self) -> str:
        return f"{str(self.place)!r} (shard {self.header.share})"

    @property
    def missing(self) -> int:
        return _size(self.header.datasets) - len(self.records)


@paused_collector()
def merge_runs(
    paths: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    allow_partial: bool = False,
    max_errors: float = MAX_ERRORS,
) -> MergedRun:
    """Put the journals of shards together.

    The journal is that of the whole run, line by line, whose header names the servers of all; so are the numbers. What
    is missing of it, the command of the whole run goes on with. Nothing is written unless all is well.

    Args:
        paths: Run folders of the shards, or their journals, in any order.
        folder: The run folder of the whole: gets `journal.jsonl`, `run.json` and `summary.json`.
        allow_partial: Take shards that are not finished, and not all of them.
        max_errors: As of `egm.evaluate.evaluate`.

    Raises:
        DataError: If one is no shard, or a shard of another run, one is given twice, missing or not finished, a sample
            is answered in two, or the folder holds another run, or answers that the shards do not.
        EgmError: If `max_errors` is no share.
    """
    check_max_errors(max_errors)
    parts = _read(paths)
    header = _whole_header(parts)
    absent = sorted({*range(1, parts[0].count + 1)} - {part.number for part in parts})
    unfinished = [part for part in parts if part.missing]
    remarks = _remarks(parts, absent, unfinished)
    if remarks and not allow_partial:
        raise DataError(
            f"{'; '.join(remarks)}: go on with the `egm eval` commands of these shards, or merge what is there with "
            "--allow-partial"
        )
    _check_apart(parts)
    records = [record for part in parts for record in part.records]
    if not records:
        raise DataError("the shards hold no answer yet: run their `egm eval` commands first")
    folder = Path(folder)
    if remarks or not _add_up(parts, header):
        check_questions(folder / JOURNAL_NAME, header, records)
    if not remarks:
        records = _as_unbroken(parts, block_size(header))
    lines = {record.key: line for part in parts for record, line in zip(part.records, part.lines, strict=False)}
    _write(folder, header, records, lines)
    counts = RunningCounts(_size(header.datasets), max_errors)
    for record in records:
        counts.add(record)
    stopped = counts.stop_reason() if counts.too_many_errors() else None
    merged = MergedRun(header, records, counts.total, stopped, tuple(remarks))
    write_numbers(folder, merged)
    return merged


def _read(paths: Sequence[str | os.PathLike[str]]) -> list[_Part]:
    """Read all shards, and hold them against the first."""
    places = [Path(path) for path in paths]
    if not places:
        raise DataError("there is nothing to merge: name the run folders of the shards")
    if len({place.resolve() for place in places}) < len(places):
        raise DataError("a run is given twice: name each run folder once")
    parts: list[_Part] = []
    for place in track(places, "reading shards"):
        header, records = read_whole_run(place)
        shard = header.shard
        if shard is None:
            raise DataError(f"{str(place)!r} is no shard, but a run of its own: merge runs that --shard made")
        part = _Part(place, header, records, shard["number"], shard["count"], shard["of"], _lines(place, records))
        if parts:
            _check_same(parts[0], part)
        parts.append(part)
    parts.sort(key=lambda part: part.number)
    for one, other in pairwise(parts):
        if one.number == other.number:
            raise DataError(
                f"{str(one.place)!r} and {str(other.place)!r} are both shard {one.header.share}: give each shard once"
            )
    return parts


def _lines(place: Path, records: Sequence[Record]) -> Sequence[bytes]:
    """The lines of a journal's records, which need not be made again; none where there are more lines than records."""
    lines = journal_lines(place)[1:]
    return lines if len(lines) == len(records) else ()


def _add_up(parts: Sequence[_Part], header: Header) -> bool:
    """Whether the questions of complete shards, each of which holds its own, are those of the whole."""
    for split, facts in header.datasets.items():
        own = [part.header.datasets[split] for part in parts if split in part.header.datasets]
        said = [each["questions"] for each in (facts, *own) if "questions" in each]  # which journals from before lack
        if len(said) <= len(own) or joined_digest(said[1:]) != said[0] or sum(each["n"] for each in own) != facts["n"]:
            return False
    return sum(_size(part.header.datasets) for part in parts) == _size(header.datasets)


def _check_same(first: _Part, part: _Part) -> None:
    if part.count != first.count:
        differences = [f"there are {part.count} shards, and there {first.count}"]
    else:
        differences = _without_shard(part).differences(_without_shard(first))
    if differences:
        raise DataError(
            f"{part} is a shard of another run than {first}: {'; '.join(differences)}: merge the shards of one command"
        )


def _without_shard(part: _Part) -> Header:
    """The header of the whole, but for the server, which each shard may have had for itself."""
    engine = {name: value for name, value in part.header.engine.items() if name != "server"}
    return replace(part.header, datasets=part.of, shard=None, engine=engine)


def _whole_header(parts: Sequence[_Part]) -> Header:
    whole = _without_shard(parts[0])
    said = [part.header.engine["server"] for part in parts if "server" in part.header.engine]
    servers = sorted({place for text in said for place in str(text).split(", ")})
    engine = {**whole.engine, **({"server": ", ".join(servers)} if servers else {})}
    started = min(part.header.started for part in parts)
    return replace(whole, engine=engine, command=command_line(), started=started)


def _remarks(parts: Sequence[_Part], absent: Sequence[int], unfinished: Sequence[_Part]) -> list[str]:
    remarks = []
    if absent:
        shown = ", ".join(map(str, absent[:20])) + (", …" if len(absent) > 20 else "")
        remarks.append(f"shard {shown} of {parts[0].count} {'is' if len(absent) == 1 else 'are'} missing")
    return remarks + [
        f"{part} is not finished: {part.missing:,} of its {_size(part.header.datasets):,} samples are missing"
        for part in unfinished
    ]


def _check_apart(parts: Sequence[_Part]) -> None:
    """Refuse a picture that two shards have answers about: its samples would be there twice, or not be one shard's."""
    seen: dict[str, _Part] = {}
    for part in parts:
        for image in {record.image for record in part.records}:
            if image in seen:
                raise DataError(
                    f"{seen[image]} and {part} both hold answers about picture {image!r}, which belongs to one shard: "
                    "restore the files, or evaluate them anew"
                )
            seen[image] = part


def _as_unbroken(parts: Sequence[_Part], block: int) -> list[Record]:
    """Put the records of complete shards into the order in which one run asks.

    In a shard, pictures stand in the order of the whole, and which shard has the next of them follows from those
    before it.
    """
    waiting = [iter(group_by_image(part.records).values()) for part in parts]
    deal, listed = DealtPictures(len(parts)), list[Record]()
    while (records := next(waiting[deal.turn - 1], None)) is not None:
        deal.next(len(records))
        listed += records
    if len(listed) < sum(len(part.records) for part in parts):
        raise DataError(
            "the shards do not fit together: their pictures were not dealt out in one way: evaluate them with one "
            "version of EGM"
        )
    return [record for record, _ in image_order(listed, block)]


def _write(folder: Path, header: Header, records: Sequence[Record], lines: Mapping[tuple[str, str], bytes]) -> None:
    """Write the journal, of lines that are known where they are, unless the folder holds what would be lost."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / JOURNAL_NAME
    if file.exists() and file.stat().st_size:
        existing, before = read_journal(file)
        if differences := header.differences(existing):
            raise DataError(
                f"{str(folder)!r} holds another run: {'; '.join(differences)}: choose another folder (--out)"
            )
        known = {record.key: record for record in records}
        lost = sum(known.get(record.key) != record for record in before)
        if lost:
            raise DataError(
                f"{str(folder)!r} holds {lost:,} answers that the shards do not: choose another folder (--out)"
            )
    written = (lines.get(record.key) or json_line(record.to_dict()) for record in records)
    write_bytes(file, b"".join((json_line(header.to_dict()), *written)))
    write_settings(folder, header)


def _size(datasets: Mapping[str, Mapping[str, Any]]) -> int:
    return sum(facts["n"] for facts in datasets.values())
