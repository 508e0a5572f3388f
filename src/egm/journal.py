"""The journal of an evaluation: a header line, then one line a sample, from which every report is rebuilt.

A journal is an append-only file (`egm.append_only`): killing the process loses nothing, and a power cut at most a
second. A sample whose line was torn is asked again. If a sample has several lines, because an error was tried again,
the last one counts; a second answer to it is damage.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import Path
from typing import Final

import numpy as np

from egm.append_only import AppendOnly, read_objects, refuse_no_file
from egm.assignment import bottleneck_iou
from egm.boxes import iou_array, pairwise_iou
from egm.collector import paused_collector
from egm.errors import DataError
from egm.progress import progress_task
from egm.records import ERROR as ERROR
from egm.records import Corners
from egm.records import Header as Header
from egm.records import Record as Record
from egm.types import Expect

JOURNAL_NAME: Final = "journal.jsonl"
"""Name of the journal in a run folder."""
_ROUNDING: Final = 1e-6  # how far an IoU may be from that of its boxes


class Journal(AppendOnly):
    """Append-only writer of a run's journal, which resumes one that is there; use it in a `with` statement.

    Args:
        folder: The run folder; made if there is none.
        header: What the run is about. Where the folder holds a journal already, it must be about the same.

    Attributes:
        header: The header in the file.
        records: What was answered before, one record a sample.

    Raises:
        DataError: If the folder holds another run, a damaged journal, one that is being written, or no plain file.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        super().__init__(folder / JOURNAL_NAME)
        try:
            self.header, self.records = self._resume(header)
        except BaseException:
            self.close()
            raise

    def _resume(self, header: Header) -> tuple[Header, list[Record]]:
        if self.is_new:
            self.write_row(header.to_dict(), sync=True)
            return header, []
        existing, records = read_journal(self.path)
        if differences := header.differences(existing):
            raise DataError(
                f"{str(self.path.parent)!r} holds another run: {'; '.join(differences)}: "
                "repeat the same command, or choose another folder (--out)"
            )
        return existing, records

    def append(self, record: Record) -> None:
        """Append one record as a line; see `AppendOnly.write_row`."""
        self.write_row(record.to_dict())


@paused_collector()
def read_journal(path: str | os.PathLike[str]) -> tuple[Header, list[Record]]:
    """Read a journal; a torn last line is left out.

    Args:
        path: A journal, or the run folder that holds one.

    Returns:
        The header, and one record a sample in the order in which samples were first answered.

    Raises:
        DataError: If there is none, or a line is damaged; the message names file and line.
    """
    file = _file_of(path)
    if not file.exists():
        raise DataError(f"there is no journal at {str(file)!r}: give a folder that `egm eval` wrote")
    refuse_no_file(file)
    header: Header | None = None
    records: dict[tuple[str, str], Record] = {}
    for number, row in read_objects(file):
        try:
            if header is None:
                header = Header.from_dict(row)
            else:
                record = Record.from_dict(row)
                before = records.get(record.key)
                if before is not None and before.failure != ERROR and before != record:
                    raise DataError(f"another answer to sample {record.id!r}, which an earlier line answers")
                records[record.key] = record
        except DataError as error:
            raise DataError(f"{str(file)!r} line {number}: {error}: restore the file, or start elsewhere") from None
    if header is None:
        raise DataError(f"{str(file)!r} is empty: the run ended before it began; start it again")
    return header, list(records.values())


def journal_lines(path: str | os.PathLike[str]) -> list[bytes]:
    """The lines of a journal, that of its header first, as they stand; a torn last one is left out."""
    return [line for line in _file_of(path).read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read the first line of a journal alone; arguments and errors as of `read_journal`."""
    file = _file_of(path)
    refuse_no_file(file)
    for _, row in read_objects(file):
        return Header.from_dict(row)
    raise DataError(f"{str(file)!r} is empty: the run ended before it began; start it again")


def read_whole_run(path: str | os.PathLike[str]) -> tuple[Header, list[Record]]:
    """Read a journal whose figures are to be told: its records must be of its own samples, and agree with themselves.

    Args:
        path: As of `read_journal`.

    Raises:
        DataError: As `read_journal` raises; or if a record is of a split that the header does not name, there are more
            of a split than it has samples, those of a whole split are not its questions, or an IoU is not that of the
            two boxes.
    """
    with progress_task(f"reading {os.fspath(path)}"):
        header, records = read_journal(path)
        file = _file_of(path)
        check_questions(file, header, records)
        _check_overlaps(file, records)
    return header, records


def check_questions(file: Path, header: Header, records: Sequence[Record]) -> None:
    """Refuse records that are not of the samples that a header names.

    Args:
        file: Where they stand, for messages.
        header: What they are to be about.
        records: One a sample.

    Raises:
        DataError: As `read_whole_run` raises.
    """
    by_split: dict[str, list[Record]] = {}
    for record in records:
        by_split.setdefault(record.split, []).append(record)
    for split, own in by_split.items():
        if split not in header.datasets:
            raise _damaged(file, own[0], f"is of split {split!r}, which its header does not name")
        if len(own) > (n := header.datasets[split]["n"]):
            raise DataError(
                f"{str(file)!r} holds {len(own)} samples of {split}, and its header says that there are {n}: restore "
                "the file, or start in another folder"
            )
        said = header.datasets[split].get("questions")  # which journals from before lack
        if len(own) == n and said is not None and said != _questions(own):
            raise DataError(
                f"{str(file)!r} holds answers to other questions than those of {split} that its header is about: "
                "restore the file, or start in another folder"
            )


def question_line(
    identity: str,
    phrase: str,
    image: str,
    truth: Corners | None,
    *,
    amodal: bool,
    expect: Expect = "one",
    truths: Sequence[Corners] | None = None,
) -> bytes:
    """Write down what a sample asks, for digests; of one that expects one box as it has always been."""
    if expect != "one" or truth is None:
        return json.dumps((identity, phrase, image, truth, amodal, expect, truths)).encode()
    # As `json.dumps` writes a list of them, in a third of its time.
    words = ", ".join(map(_quoted, (identity, phrase, image)))
    try:
        corners = ", ".join(map(float.__repr__, truth))
    except TypeError:
        corners = ", ".join([float.__repr__(x) if isinstance(x, float) else int.__repr__(x) for x in truth])
    return f"[{words}, [{corners}], {'true' if amodal else 'false'}]".encode()


def questions_digest(lines: Iterable[bytes]) -> str:
    """Tell the questions of a split from others, in whatever order they come.

    Digests of parts of a split add up to that of the whole, modulo 2**64.

    Args:
        lines: Of each sample what `question_line` writes.

    Returns:
        16 hexadecimal digits.
    """
    numbers = (hashlib.sha256(line).digest()[:8] for line in lines)
    return f"{sum(int.from_bytes(number, 'big') for number in numbers) % 2**64:016x}"


def joined_digest(parts: Iterable[str]) -> str:
    """The digest of a split's questions (`questions_digest`), from those of parts that make it up."""
    return f"{sum(int(part, 16) for part in parts) % 2**64:016x}"


def _questions(records: Iterable[Record]) -> str:
    return questions_digest(
        question_line(r.id, r.phrase, r.image, r.truth, amodal=r.amodal, expect=r.expect, truths=r.truths)
        for r in records
    )


def _check_overlaps(file: Path, records: Sequence[Record]) -> None:
    for record in records:
        if record.box is None and record.iou > 0 and not record.is_none:
            raise _damaged(file, record, f"has an IoU of {record.iou:g} and no box")
        if record.box is not None and record.failure is not None:
            raise _damaged(file, record, f"has a box, and the failure {record.failure!r}")
    single = [r for r in records if len(r.answered) == len(r.true_boxes) == 1]
    with np.errstate(all="ignore"):  # of boxes whose areas are no floats: their IoU is then no number, and fits none
        overlaps = iou_array([r.answered[0] for r in single], [r.true_boxes[0] for r in single]).tolist()
        several = [
            r for r in records if (r.box is not None or r.is_none) and not len(r.answered) == len(r.true_boxes) == 1
        ]
        overlaps += [bottleneck_iou(pairwise_iou(r.answered, r.true_boxes)) for r in several]
    for record, overlap in zip([*single, *several], overlaps, strict=True):
        if not abs(record.iou - overlap) <= _ROUNDING:
            raise _damaged(file, record, f"has an IoU of {record.iou:g}, and its boxes one of {overlap:g}")


def _damaged(file: Path, record: Record, how: str) -> DataError:
    name = f"sample {record.id!r} of {record.split}" if record.split else f"sample {record.id!r}"
    return DataError(f"{str(file)!r}: {name} {how}: restore the file, or start in another folder")


def refuse_shard(path: object, header: Header, otherwise: str = "") -> None:
    """Refuse a shard where the figures of a whole run are wanted.

    Args:
        path: Where its journal is, for the message.
        header: What that is about.
        otherwise: What else can be done with it, for the message.

    Raises:
        DataError: If it is one.
    """
    if header.shard is not None:
        shard = f"{str(path)!r} is shard {header.share} of a run"
        raise DataError(f"{shard}: put all its shards together with `egm eval merge`{otherwise}")


def is_journal(path: Path) -> bool:
    """Tell a journal, or a run folder that holds one, from anything else.

    Raises:
        DataError: If it is neither a file nor a folder, such as a pipe, from which nothing can be read twice.
    """
    if path.is_dir():
        return (path / JOURNAL_NAME).exists()
    refuse_no_file(path)
    with path.open("rb") as file:
        start = file.readline(1_000_000)
    try:
        row = json.loads(start)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "journal" in row


def _file_of(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    return file / JOURNAL_NAME if file.is_dir() else file
