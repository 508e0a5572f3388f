"""Append-only files of JSON lines that outlive their process: locked, torn ends dropped, watched while they grow.

Each line is handed to the system whole as it is appended, so that killing the process loses nothing, and is synced to
the disk within `SYNC_SECONDS` of appending the next and on closing, so that a power cut loses no more than that. What
stands after the last line feed was torn, and is dropped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from egm.errors import DataError
from egm.files import lock

SYNC_SECONDS: Final = 1.0
"""How long a line may wait for the disk while others follow it."""


class AppendOnly:
    """Writer of one file; use it in a `with` statement.

    Args:
        path: The file; made if there is none, with its folder.

    Attributes:
        path: As given.
        is_new: Whether it held no whole line.

    Raises:
        DataError: If it is being written by another process, or is no plain file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_no_file(path)
        self._file = path.open("ab")
        try:
            if not lock(self._file.fileno()):
                raise DataError(f"{str(path)!r} is being written by another process: wait for it, or end it")
            self._size = _whole_bytes(path)
            if self._size < path.stat().st_size:
                self._file.truncate(self._size)
        except BaseException:
            self._file.close()
            raise
        self.is_new = self._size == 0
        self._synced = time.monotonic()

    def write_row(self, row: Mapping[str, Any], *, sync: bool = False) -> None:
        """Append one line; it outlives the process from here on.

        Args:
            row: The JSON object.
            sync: Wait until the disk has it.

        Raises:
            DataError: If the file of that name is no longer the one that lines are appended to, or others wrote to it.
        """
        line = json_line(row)
        with self._named():
            self._file.write(line)
            self._file.flush()
        self._size += len(line)
        self._check_in_place()
        if sync or time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()

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

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close, whatever happened."""
        self.close()


def json_line(row: Mapping[str, Any]) -> bytes:
    """Write an object as a line."""
    return json.dumps(row).encode("ascii") + b"\n"


def read_objects(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file with their line numbers, counted from 1; a torn last line is left out.

    Raises:
        DataError: If a line is no JSON object; the message names file and line.
    """
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


def refuse_no_file(path: Path) -> None:
    """Refuse what opening would wait for, or cannot be read twice: pipes, devices, sockets.

    Raises:
        DataError: If it is one.
    """
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
