"""Files that matter: written under a temporary name, synced, renamed, so that none is ever half written; and locks."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in full or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # a full disk names none, and nobody asked for the temporary one
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Write a text file in UTF-8, in full or not at all."""
    write_bytes(path, content.encode("utf-8"))


def lock(descriptor: int) -> bool:
    """Lock an open file against other processes, without waiting; where there are no such locks, everybody gets one.

    The lock is the open file's: it lasts until the last process that has it open, children included, closes it or dies,
    and leaves no file behind that would have to be cleared away.

    Returns:
        Whether it is locked now; False if another process has the lock.
    """
    if sys.platform == "win32":  # its locks would keep readers out too
        return True
    from filelock import lock_descriptor

    try:
        return lock_descriptor(descriptor, blocking=False)
    except OSError:  # a file system without locks
        return True
