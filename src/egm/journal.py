"""The journal of an evaluation: a header line, then one line a sample, from which every report is rebuilt.

A journal is append-only. Each line is handed to the system whole as it is appended, so that killing the process loses
nothing, and is synced to the disk within `SYNC_SECONDS` of appending the next and on closing, so that a power cut loses
no more than that. What stands after the last line feed was torn: it is dropped, and its sample asked again. If a sample
has several lines, because an error was tried again, the last one counts; a second answer to it is damage.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np

from egm.boxes import iou_array
from egm.errors import DataError
from egm.files import lock
from egm.records import ERROR as ERROR
from egm.records import Header as Header
from egm.records import Record as Record
from egm.records import question_line, questions_digest

JOURNAL_NAME: Final = "journal.jsonl"
"""Name of the journal in a run folder."""
SYNC_SECONDS: Final = 1.0
"""How long a line may wait for the disk while others follow it."""
_ROUNDING: Final = 1e-6  # how far an IoU may be from that of its boxes


class Journal:
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
        self.path = folder / JOURNAL_NAME
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_no_file(self.path)
        self._file = self.path.open("ab")
        try:
            if not lock(self._file.fileno()):
                raise DataError(f"{str(self.path)!r} is being written by another process: wait for it, or end it")
            self.header, self.records = self._resume(header)
        except BaseException:
            self._file.close()
            raise
        self._synced = time.monotonic()

    def _resume(self, header: Header) -> tuple[Header, list[Record]]:
        whole = _whole_bytes(self.path)
        if whole < self.path.stat().st_size:
            self._file.truncate(whole)
        self._size = whole
        if whole == 0:
            self._write(header.to_dict())
            self._sync()
            return header, []
        existing, records = read_journal(self.path)
        if differences := header.differences(existing):
            raise DataError(
                f"{str(self.path.parent)!r} holds another run: {'; '.join(differences)}: "
                "repeat the same command, or choose another folder (--out)"
            )
        return existing, records

    def append(self, record: Record) -> None:
        """Append one record as a line; it outlives the process from here on.

        Raises:
            DataError: If the file of that name is no longer the one that lines are appended to, or others wrote to it.
        """
        self._write(record.to_dict())
        self._check_in_place()
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()

    def _write(self, row: Mapping[str, Any]) -> None:
        line = json.dumps(row).encode("ascii") + b"\n"
        with self._named():
            self._file.write(line)
            self._file.flush()
        self._size += len(line)

    def _check_in_place(self) -> None:
        """Refuse to go on with a file that is deleted, moved away or emptied: what is appended to it nobody reads."""
        ours = os.fstat(self._file.fileno())
        try:
            there = self.path.stat()
        except OSError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            what = "is gone" if there is None else "was replaced by another file"
        elif ours.st_size != self._size:
            what = "was written to by something else"
        else:
            return
        raise DataError(
            f"{str(self.path)!r} {what} while the run was writing it: put it back if you can, and start the same "
            "command again, which asks what the file does not hold"
        )

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close."""
        if not self._file.closed:
            with self._named():
                self._sync()
                self._file.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Let an error of the system, such as a full disk, say whose it is."""
        try:
            yield
        except OSError as error:
            error.filename = str(self.path)
            raise

    def __enter__(self) -> Journal:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close, whatever happened."""
        self.close()


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
    _refuse_no_file(file)
    header: Header | None = None
    records: dict[tuple[str, str], Record] = {}
    for number, row in _rows(file):
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


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read the first line of a journal alone; arguments and errors as of `read_journal`."""
    file = _file_of(path)
    _refuse_no_file(file)
    for _, row in _rows(file):
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


def _questions(records: Iterable[Record]) -> str:
    return questions_digest(question_line(r.id, r.phrase, r.image, r.truth, amodal=r.amodal) for r in records)


def _check_overlaps(file: Path, records: Sequence[Record]) -> None:
    for record in records:
        if record.box is None and record.iou > 0:
            raise _damaged(file, record, f"has an IoU of {record.iou:g} and no box")
        if record.box is not None and record.failure is not None:
            raise _damaged(file, record, f"has a box, and the failure {record.failure!r}")
    boxed = [(record, record.box) for record in records if record.box is not None]
    if not boxed:
        return
    with np.errstate(all="ignore"):  # of boxes whose areas are no floats: their IoU is then no number, and fits none
        overlaps = iou_array([box for _, box in boxed], [record.truth for record, _ in boxed])
    for (record, _), overlap in zip(boxed, overlaps.tolist(), strict=True):
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
    _refuse_no_file(path)
    with path.open("rb") as file:
        start = file.readline(1_000_000)
    try:
        row = json.loads(start)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "journal" in row


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise DataError(f"{str(file)!r} line {number} is damaged: restore the file, or start in another folder")
            yield number, row


def _file_of(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    return file / JOURNAL_NAME if file.is_dir() else file


def _refuse_no_file(path: Path) -> None:
    """Refuse what opening would wait for, or cannot be read twice: pipes, devices, sockets."""
    if path.exists() and not path.is_file():
        raise DataError(f"{str(path)!r} is no plain file: give one, or move this away")


def _whole_bytes(file: Path) -> int:
    """Length of a file up to its last line feed."""
    with file.open("rb") as content:
        end = content.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            content.seek(start)
            line_feed = content.read(end - start).rfind(b"\n")
            if line_feed >= 0:
                return start + line_feed + 1
            end = start
    return 0
