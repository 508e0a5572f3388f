"""Shards of a run of rationales put together: one journal, with which the command of the whole run goes on.

Filters that compare with what was kept looked at one shard alone. So their verdicts are given again here, sample by
sample in the order of the dataset, as one run gives them: what one shard kept and an earlier sample of another already
says is dropped, and asked about again by the command of the whole run, as far as its tries go.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from egm.boxes import Box
from egm.collector import paused_collector
from egm.errors import DataError
from egm.files import write_bytes
from egm.journal import JOURNAL_NAME
from egm.progress import track
from egm.rationales.blind import NAME
from egm.rationales.candidate import Candidate
from egm.rationales.filters import Filter, build_filters, run_filters
from egm.rationales.ledger import Call, Decision, Line, convention, header_row, line_row, read_ledger
from egm.rationales.teachers import rationale_of
from egm.records import list_differences
from egm.terminal import command_line
from egm.types import Sample


@dataclass(frozen=True, slots=True)
class MergedRationales:
    """Shards as one run.

    Attributes:
        samples: How many the whole run has.
        kept: Those with a rationale.
        alike: Those that a shard kept, and that are dropped beside what another shard kept.
        remarks: What is missing of it, a sentence each; nothing where all shards are finished.
    """

    samples: int
    kept: int
    alike: int
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    """The journal of a shard."""

    place: Path
    header: Mapping[str, Any]
    lines: list[Line]

    @property
    def shard(self) -> Mapping[str, Any]:
        shard: Mapping[str, Any] = self.header["identity"]["shard"]
        return shard

    def __str__(self) -> str:
        return f"{str(self.place)!r} (shard {self.shard['number']}/{self.shard['count']})"

    @property
    def missing(self) -> int:
        """Samples that nothing is decided of yet."""
        identity = self.header["identity"]
        tries: dict[str, int] = {}
        settled, answered = set(), set()
        for line in self.lines:
            if isinstance(line, Call):
                answered |= {line.id} if line.error is None else set()
                continue
            tries[line.id] = tries.get(line.id, 0) + 1
            if not line.against or line.id not in answered or tries[line.id] >= identity["tries"]:
                settled.add(line.id)
        return int(identity["data"]["n"]) - len(settled)

    def whole(self) -> dict[str, Any]:
        """The identity of the whole run."""
        identity = {name: value for name, value in self.header["identity"].items() if name != "shard"}
        return identity | {"data": self.shard["of"]}


@paused_collector()
def merge_rationales(
    paths: Sequence[str | os.PathLike[str]], folder: str | os.PathLike[str], *, allow_partial: bool = False
) -> MergedRationales:
    """Put the journals of shards together.

    Nothing is written unless all is well; training data and card are then written by the command of the whole run.

    Args:
        paths: Run folders of the shards, in any order.
        folder: The run folder of the whole: gets `journal.jsonl`.
        allow_partial: Take shards that are not finished, and not all of them.

    Raises:
        DataError: If one is no shard, or a shard of another run, one is given twice, missing or not finished, a sample
            stands in two, or the folder holds a run already.
    """
    parts = _read(paths)
    count = parts[0].shard["count"]
    absent = sorted({*range(1, count + 1)} - {part.shard["number"] for part in parts})
    remarks = [f"shard {', '.join(map(str, absent))} of {count} {'is' if len(absent) == 1 else 'are'} missing"]
    remarks = remarks if absent else []
    remarks += [f"{part} is not finished: {part.missing:,} samples are missing" for part in parts if part.missing]
    if remarks and not allow_partial:
        raise DataError(
            f"{'; '.join(remarks)}: go on with the `egm rationales` commands of these shards, or merge what is there "
            "with --allow-partial"
        )
    file = Path(folder) / JOURNAL_NAME
    if file.exists():
        raise DataError(f"{str(file.parent)!r} holds a run already: choose another folder (--out)")
    identity, about = parts[0].whole(), dict(parts[0].header["about"])
    about |= {"command": list(command_line()), "started": min(part.header["about"]["started"] for part in parts)}
    again = _Again(parts[0].header)
    listed = [again.decide(lines) for lines in track(_by_number(parts), "deciding on samples")]
    rows = [header_row(identity, about), *(line_row(line) for lines in listed for line in lines)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, b"".join(json.dumps(row).encode("ascii") + b"\n" for row in rows))
    return MergedRationales(identity["data"]["n"], again.kept, again.alike, tuple(remarks))


def _read(paths: Sequence[str | os.PathLike[str]]) -> list[_Part]:
    """Read all shards, and hold them against the first."""
    parts: list[_Part] = []
    for place in track([*map(Path, paths)], "reading shards"):
        part = _Part(place, *read_ledger(place))
        shard = part.header["identity"].get("shard")
        if shard is None:
            raise DataError(f"{str(place)!r} is no shard, but a run of its own: merge runs that --shard made")
        if not _is_shard(shard):
            raise DataError(f"{str(place)!r} does not say which shard it is: restore the file")
        if parts:
            mine, theirs = ({**_anywhere(each.whole()), "shards": each.shard["count"]} for each in (part, parts[0]))
            if differences := list_differences(mine, theirs):
                raise DataError(
                    f"{part} is a shard of another run than {parts[0]}: {'; '.join(differences)}: merge the shards of "
                    "one command"
                )
        parts.append(part)
    if not parts:
        raise DataError("there is nothing to merge: name the run folders of the shards")
    parts.sort(key=lambda part: int(part.shard["number"]))
    for one, other in pairwise(parts):
        if one.shard["number"] == other.shard["number"]:
            raise DataError(f"{one} and {other} are the same shard: give each shard once")
    return parts


def _is_shard(value: Any) -> bool:
    known = isinstance(value, dict) and value.keys() == {"number", "count", "of"} and isinstance(value["of"], dict)
    return known and all(type(value[name]) is int and value[name] > 0 for name in ("number", "count"))


def _anywhere(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is about but for its servers, which each shard may have for itself."""
    values = dict(identity)
    for asked in ("teacher", "blind"):
        if isinstance(values[asked], Mapping):
            values[asked] = {name: value for name, value in values[asked].items() if name != "server"}
    return values


def _by_number(parts: Sequence[_Part]) -> list[list[Line]]:
    """The lines of each sample, in the order of the dataset."""
    found: dict[int, list[Line]] = {}
    owner: dict[int, _Part] = {}
    for part in parts:
        for line in part.lines:
            if line.number is None or owner.setdefault(line.number, part) is not part:
                raise DataError(f"{part} holds a line of sample {line.id!r}, which is not its own: restore the file")
            found.setdefault(line.number, []).append(line.model_copy(update={"number": None}))
    return [found[number] for number in sorted(found)]


class _Again:
    """Decides again on what shards decided, as far as that depends on what was kept before.

    Attributes:
        kept: Samples with a rationale so far.
        alike: Samples that a shard kept, and that are dropped now.
    """

    def __init__(self, header: Mapping[str, Any]) -> None:
        identity = header["identity"]
        self._style, self._codec = convention(header)
        self._name, self._is_blind = identity["style"]["name"], identity["blind"] is not None
        self._order = [*identity["filters"], NAME]
        filters = build_filters(identity["filters"])
        self._comparing = [each for each in filters if type(each).remember is not Filter.remember]
        self.kept = self.alike = 0

    def decide(self, lines: Sequence[Line]) -> list[Line]:
        """Return the lines of one sample as the whole run has them."""
        listed: list[Line] = []
        reply: Call | None = None
        for place, line in enumerate(lines):
            if isinstance(line, Call):
                listed.append(line)
                reply = line if line.error is None and line.asked == "teacher" else reply
                continue
            if reply is None:  # nobody was asked about it
                listed.append(line)
                break
            candidate = self._candidate(reply)
            against = self._against(line, candidate)
            if not against and line.against and self._is_blind and line.iou is None:
                return _with_surplus(listed, lines[place + 1 :])  # the blind check has yet to be asked
            listed.append(line.model_copy(update={"against": against}))
            if not against:
                for each in self._comparing:
                    each.remember(candidate)
                self.kept += 1
                return _with_surplus(listed, lines[place + 1 :])
            self.alike += not line.against
            reply = None
        return listed

    def _against(self, line: Decision, candidate: Candidate) -> dict[str, str]:
        names = {each.name for each in self._comparing}
        found = {name: why for name, why in line.against.items() if name not in names}
        found |= {each.filter: each.why for each in run_filters(self._comparing, candidate) if each.why is not None}
        return {name: found[name] for name in self._order if name in found}

    def _candidate(self, call: Call) -> Candidate:
        if call.truth is None:
            raise DataError(f"sample {call.id!r} has an answer without its question: restore the file")
        sample = Sample(call.id, call.image, call.phrase, Box(*call.truth), call.size)
        return Candidate(sample, rationale_of(call.text, self._style, self._codec), self._name, call.attempt)


def _with_surplus(listed: Sequence[Line], surplus: Sequence[Line]) -> list[Line]:
    """Lines of a sample, the last of whose calls bears what calls took that one run would not have made."""
    calls = [line for line in surplus if isinstance(line, Call)]
    read, written = (sum(call.tokens[k] + call.lost[k] for call in calls) for k in (0, 1))
    last = max(place for place, line in enumerate(listed) if isinstance(line, Call))
    bearer = listed[last]
    assert isinstance(bearer, Call)
    bearer = bearer.model_copy(update={"lost": (bearer.lost[0] + read, bearer.lost[1] + written)})
    return [*listed[:last], bearer, *listed[last + 1 :]]
